"""What llmchat costs, beside others, measured from outside. Nothing of the product imports it; see README.md."""
