"""The form by which a superuser switches primary or dual write in the admin."""

from typing import Any
from uuid import uuid4

from django import forms

from conversations.errors import ConversationError
from conversations.policy import Routing, Switch
from conversations.runtime import switching
from conversations.stores import ALIASES, BACKENDS
from ops import audit, lease
from ops.errors import OperatorError, Overtaken
from ops.status import collect
from ops.status.render import in_words

NAMES = {alias: BACKENDS[alias].label for alias in ALIASES}


class SwitchForm(forms.Form):
    """Where traffic is to go, and why."""

    primary = forms.ChoiceField(choices=[(alias, NAMES[alias]) for alias in ALIASES], widget=forms.RadioSelect)
    dual_write = forms.BooleanField(required=False, label="Dual write: every turn to both stores")
    reason = forms.CharField(max_length=200, widget=forms.TextInput(attrs={"class": "vTextField"}))
    since = forms.FloatField(widget=forms.HiddenInput)
    """The time of the switch that was the newest one when the form was shown."""
    confirmed = forms.BooleanField(required=False, widget=forms.HiddenInput)

    @classmethod
    def of(cls, seen: collect.Status) -> "SwitchForm":
        """Return the form that says how things are."""
        routing, since = seen.routing, _since(seen.switch)
        return cls(initial={"primary": routing.primary, "dual_write": routing.dual_write, "since": since})

    def routing(self) -> Routing:
        """Return what was chosen in a valid form."""
        return Routing(self.cleaned_data["primary"], self.cleaned_data["dual_write"])

    def warnings(self, seen: collect.Status) -> list[str]:
        """Return the warnings to show before the switch."""
        wanted, lines = self.routing(), []
        for alias in wanted.wanted:
            if not seen.stores[alias].up:
                lines.append(f"{NAMES[alias]} is out ({seen.stores[alias].error}), and would be asked to take turns.")
        if wanted.primary != seen.routing.primary:
            lines.append(
                f"Nothing is copied. While both stores are up, `manage.py failover --to {wanted.primary}` copies and "
                "compares every conversation before it switches."
            )
        if seen.routing.dual_write and not wanted.dual_write:
            lines.append("Without dual write a turn is in one store alone, and lost if that store loses it.")
        return lines

    def switch(self, username: str) -> str:
        """Switch, and return what was done; it is audited either way. Raise Overtaken, Busy or NoStore, with nothing
        changed."""
        who, reason = f"{username} in the admin", self.cleaned_data["reason"]
        before: list[Routing] = []
        try:
            with lease.held(f"{who}:{uuid4().hex}"):
                done = self._switch(who, reason, before)
        except (ConversationError, OperatorError) as error:
            audit.record("switch", f"failed: {error}", who=who, reason=reason, before=_fields(*before))
            raise
        audit.record("switch", "done", who=who, reason=reason, before=_fields(*before), after=_fields(self.routing()))
        return done

    def _switch(self, who: str, reason: str, before: list[Routing]) -> str:
        newest = switching.newest_of(switching.read())
        before.append(newest.routing if newest else switching.environment())
        if _since(newest) > self.cleaned_data["since"]:
            raise Overtaken
        if before == [self.routing()]:
            return f"It is so already: {in_words(self.routing())}."
        _, taken = switching.record(self.routing(), who, reason)
        done = f"{in_words(self.routing())}; recorded in {' and '.join(taken)}."
        return f"{done} Every process follows within two seconds."


def _since(newest: Switch | None) -> float:
    return newest.at if newest else 0.0


def _fields(routing: Routing | None = None) -> dict[str, Any]:
    return {"primary": routing.primary, "dual_write": routing.dual_write} if routing else {}
