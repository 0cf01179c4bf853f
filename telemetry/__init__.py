"""What the service counts and logs; it imports nothing of the service."""
