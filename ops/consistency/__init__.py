"""Comparing both stores, and repairing what differs."""
