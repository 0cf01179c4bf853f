"""On `default`, beside the users: the audit log, which tokens were issued, what the console runs, the ledger of
deletions, and the figures of the last day."""

from django.db import models
from django.db.models.functions import Now


class AuditEntry(models.Model):
    """One operator action: who, what, why, before, after, outcome."""

    at = models.DateTimeField(auto_now_add=True)
    who = models.CharField(max_length=255)
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


class Run(models.Model):
    """One run of an action of the console, or the plan of one: as far as its process has come.

    Every worker of the server reads it; the process of the run writes it, about once a second.
    """

    class State(models.TextChoices):
        RUNNING = "running"
        DONE = "done"
        TROUBLE = "trouble", "ended with trouble"
        FAILED = "failed", "could not be done"
        INTERRUPTED = "interrupted"

    action = models.CharField(max_length=20)
    words = models.JSONField(default=list)
    """The command's options."""
    applies = models.BooleanField()
    """Whether it does it; else it is a plan, which changes nothing."""
    plan = models.OneToOneField("self", null=True, on_delete=models.SET_NULL, related_name="done_by")
    """The plan that was agreed to: it is carried out once."""
    who = models.CharField(max_length=200)
    reason = models.CharField(max_length=200, blank=True)
    since = models.FloatField(default=0.0)
    """When the switch was made that was the newest one at the beginning, 0.0 for none."""
    state = models.CharField(max_length=20, choices=State, default=State.RUNNING)
    step = models.CharField(max_length=100, blank=True)
    done = models.BigIntegerField(default=0)
    of = models.BigIntegerField(default=0)
    lines = models.JSONField(default=list)
    report = models.JSONField(default=dict)
    outcome = models.CharField(max_length=500, blank=True)
    exit_code = models.SmallIntegerField(null=True)
    started_at = models.DateTimeField(db_default=Now())
    beat_at = models.DateTimeField(db_default=Now())
    """When its process was last known to live, by the clock of the database."""
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ("-id",)
        default_permissions = ()
        permissions = (
            ("run_failover", "Can run failover"),
            ("run_failback", "Can run failback"),
            ("run_reconcile", "Can run reconcile"),
            ("run_trim", "Can run trim"),
            ("run_backup", "Can run backup"),
            ("switch_dual_write", "Can switch dual write on and off"),
        )
        constraints = (
            models.UniqueConstraint(
                fields=("applies",), condition=models.Q(applies=True, state="running"), name="one_action_at_a_time"
            ),
            models.UniqueConstraint(
                fields=("who",), condition=models.Q(applies=False, state="running"), name="one_plan_of_each_at_a_time"
            ),
        )

    def __str__(self) -> str:
        return f"{self.action} by {self.who}: {self.in_words}"

    @property
    def in_words(self) -> str:
        """The state. What a plan has found is no trouble of the plan."""
        ready = not self.applies and self.state in (self.State.DONE, self.State.TROUBLE)
        return "ready" if ready else self.get_state_display().lower()


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
