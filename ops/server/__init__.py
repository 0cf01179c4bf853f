"""The web server: how connections are taken, requests reach Django, and processes are kept running."""
