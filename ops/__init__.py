"""Operating onesource: health, metrics, logs, and the commands of the runbook."""
