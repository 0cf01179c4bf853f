"""What the service counts, logs and traces; it imports nothing of the service."""
