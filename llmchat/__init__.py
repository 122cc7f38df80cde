"""The project: settings, URLs, entry points, and `lib`, which knows nothing of the product."""
