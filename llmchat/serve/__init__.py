"""What `manage.py serve` runs: web workers and background work, each a process under one supervisor."""
