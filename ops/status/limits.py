"""What is normal: the runbook's four figures, and the limits of the alerts. A test compares them with
deploy/alerts.yaml."""

P95_MS = 50.0
PERSIST_ERRORS = 0.001
"""Part of the turns that a store did not take."""
PERSIST_ERRORS_A_SECOND = 0.001
BUDGET_BURN = 14.4
"""Times PERSIST_ERRORS, over an hour."""
CONTEXT_FOUND = 0.999
MEMORY_PER_10K = 100 * 1_048_576
HIT_RATE = 0.9
FULL, ALMOST_FULL = 0.95, 0.8
"""Parts of maxmemory."""
BACKUP_SECONDS = 26 * 3600
VERIFIED_SECONDS = 14 * 24 * 3600
"""As long as a backup is kept, of one a night."""
