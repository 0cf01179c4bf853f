"""Conversations: their histories, the two stores that keep them, and the HTTP that asks."""
