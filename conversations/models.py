"""The documents in MongoDB, as Django models."""

from typing import Any

from django.db import models
from django_mongodb_backend.fields import ObjectIdAutoField

from conversations.clock import now

ALIAS = "mongo"


class ConversationQuerySet(models.QuerySet["Conversation"]):
    """MongoDB deletes expired documents once a minute, so queries leave them out by themselves."""

    def living(self) -> "ConversationQuerySet":
        """Return the conversations that have messages; a document without any is kept for its tombstone. Another
        program's document can be among them whose expiry is no date: MongoDB looks into arrays."""
        return self.filter(expires_at__gt=now(), bytes__gt=0)

    def as_stored(self, *fields: str) -> "models.QuerySet[Conversation, tuple[Any, ...]]":
        """Return these fields as MongoDB has them: Django's conversion fails where another program has written values
        of other types."""
        raw = [models.ExpressionWrapper(models.F(field), models.TextField()) for field in fields]
        return self.values_list(*raw)


class Conversation(models.Model):
    """One conversation; only conversations.stores adds turns and deletes, without save()."""

    key = models.CharField(primary_key=True, max_length=262, db_column="_id")
    messages = models.JSONField(default=list)
    bytes = models.PositiveBigIntegerField(default=0, help_text="At most this long as JSON lines.")
    updated_at = models.DateTimeField(help_text="The time of the newest message that it ever had.")
    place = models.CharField(  # noqa: DJ001
        max_length=153, null=True, help_text="The same after its tenant: where it is in the tenant's list."
    )
    expires_at = models.DateTimeField()

    # Null, not "": the update's filter distinguishes an absent tombstone.
    tombstone = models.CharField(  # noqa: DJ001
        max_length=36, null=True, help_text="The id up to which everything was deleted."
    )
    mark = models.CharField(  # noqa: DJ001
        max_length=32, null=True, help_text="Set while the other store is missing turns of it."
    )

    objects = ConversationQuerySet.as_manager()

    class Meta:
        ordering = ("key",)

    def __str__(self) -> str:
        return self.key


class CorruptConversation(models.Model):
    """A document that was no history and was quarantined, kept unchanged for one TTL."""

    id = ObjectIdAutoField(primary_key=True)
    key = models.CharField(max_length=262)  # indexed by the migration
    document = models.JSONField()
    expires_at = models.DateTimeField()

    def __str__(self) -> str:
        return self.key
