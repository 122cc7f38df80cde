"""The reference adapters: each vendor's own library, under our HTTP client."""
