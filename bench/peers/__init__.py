"""The gateways that ours is measured beside: what installs them, and what runs inside their environments."""
