"""The group of people who help users: they read and export conversations, and delete them where a user asks for it."""

from typing import Any

from django.contrib.auth.models import Group, Permission
from django.db import DEFAULT_DB_ALIAS

NAME = "Support"
_MAY = ("view_conversation", "delete_conversation")


def make_group(using: str, **options: Any) -> None:
    """Make the group where there is none, after a migration: the permissions are there then. One that is there is left
    as it is."""
    if using != DEFAULT_DB_ALIAS:
        return
    group, made = Group.objects.using(using).get_or_create(name=NAME)
    if made:
        group.permissions.set(Permission.objects.using(using).filter(codename__in=_MAY))
