"""Backups: made, verified by a restore, and restored."""
