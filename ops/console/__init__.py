"""Conversations in the admin: found, read, exported and deleted by people."""
