"""The models one can talk to: vendors, adapters, catalogue, prices, health. Knows nothing of accounts."""
