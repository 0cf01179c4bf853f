"""Histories in MongoDB."""
