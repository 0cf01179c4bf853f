"""The Python client: its rules without I/O, and all of it against a running server whose stores fail."""
