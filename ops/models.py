"""On `default`, beside the users: the audit log, which tokens were issued, the ledger of deletions, and the figures of
the last day."""

from django.db import models


class AuditEntry(models.Model):
    """One operator action: who, what, why, before, after, outcome."""

    at = models.DateTimeField(auto_now_add=True)
    who = models.CharField(max_length=150)
    action = models.CharField(max_length=50)
    reason = models.TextField(blank=True)
    before = models.JSONField(default=dict)
    after = models.JSONField(default=dict)
    outcome = models.CharField(max_length=200)

    class Meta:
        ordering = ("-at",)
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} {self.who} {self.action}: {self.outcome}"


class IssuedToken(models.Model):
    """What is known of a token, without the token itself. No request reads it: it is for the operator who looks for the
    one to revoke."""

    id = models.CharField(primary_key=True, max_length=32)
    name = models.CharField(max_length=128)
    tenant = models.CharField(max_length=128, blank=True)
    scopes = models.JSONField(default=list)
    key = models.CharField(max_length=32)
    """The id of the key that signed it."""
    created_at = models.DateTimeField(auto_now_add=True)
    until = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    revoked_by = models.CharField(max_length=150, blank=True)

    class Meta:
        ordering = ("-created_at",)
        permissions = (("revoke_token", "Can revoke a token"),)

    def __str__(self) -> str:
        return f"{self.id} {self.name}"


class Deletion(models.Model):
    """The ledger of deletions, for a restore after both stores were lost with their tombstones: names of sessions and
    ids, no word of a conversation."""

    session = models.CharField(max_length=257)
    upto = models.CharField(max_length=36)
    at = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("session", "upto"), name="one_row_a_deletion"),)

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} up to {self.upto}"


class Sample(models.Model):
    """The figures of one minute on one machine, for the charts of the status page; a day of them is kept. What is not
    known is NULL, never zero."""

    machine = models.CharField(max_length=255)
    at = models.DateTimeField(db_index=True)
    """When the minute began."""
    p95_ms = models.FloatField(null=True)
    memory_bytes = models.FloatField(null=True)
    hits = models.FloatField(null=True)
    """Of the `reads` those that found the conversation in the primary."""
    reads = models.FloatField(null=True)
    persist_errors = models.FloatField(null=True)
    unsynced = models.FloatField(null=True)

    class Meta:
        constraints = (models.UniqueConstraint(fields=("machine", "at"), name="one_row_a_minute"),)

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M} {self.machine}"
