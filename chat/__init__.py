"""The product's heart: conversations, interactions, attempts, and the pipeline that makes them."""
