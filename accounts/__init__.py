"""Who may do what: organizations, users, keys, plans and limits. Knows nothing of providers and models' vendors."""
