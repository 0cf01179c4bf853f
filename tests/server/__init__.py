"""The web server, by real clients: what they send, what they hold back, and what they get."""
