"""The session_id in an address."""

from django.urls.converters import StringConverter

from conversations.turns import SESSION_ID


class SessionIDConverter(StringConverter):
    """Matches any path segment; one that is no session_id becomes "", so that the view can answer 400 and name
    the rule. Refusing to match it would make it a 404, like a conversation that does not exist."""

    def to_python(self, value: str) -> str:
        return value if SESSION_ID.fullmatch(value) else ""
