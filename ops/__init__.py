"""Operating onesource: the commands of the runbook, the pages of the admin beside them, and the web server."""
