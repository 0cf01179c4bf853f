"""The audit log: what operators did, kept on `default` beside the users."""

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
