"""What is asked for before an action: what to do, and then a yes that is typed, with a reason."""

from argparse import ArgumentTypeError
from collections.abc import Callable

from django import forms

from conversations.stores import ALIASES, BACKENDS
from ops.management.commands import trim

NAMES = {alias: BACKENDS[alias].label for alias in ALIASES}
_TYPED = {"class": "vTextField", "autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}


class FailoverForm(forms.Form):
    """Where traffic is to go."""

    to = forms.ChoiceField(label="To", choices=[(alias, NAMES[alias]) for alias in ALIASES], widget=forms.RadioSelect)


class TrimForm(forms.Form):
    """What is to go. `--discard`, which deletes for good what only one store has, is the command's alone."""

    older_than = forms.CharField(
        max_length=20, required=False, label="Conversations older than", help_text="by the last message: 20d, 12h, 2w"
    )
    max_turns = forms.CharField(
        max_length=20, required=False, label="Turns of each to keep", help_text="the newest so many"
    )
    to_memory = forms.CharField(
        max_length=20, required=False, label="Memory to use at most", help_text="80% of maxmemory, 2gb, 500mb"
    )
    expired = forms.BooleanField(required=False, label="What has outlived its TTL, or has none")
    store = forms.ChoiceField(label="In", choices=[("both", "both stores"), *NAMES.items()], initial="both")

    def clean_older_than(self) -> str:
        return self._valid("older_than", trim.age)

    def clean_max_turns(self) -> str:
        return self._valid("max_turns", trim.positive)

    def clean_to_memory(self) -> str:
        return self._valid("to_memory", trim.size)

    def clean(self) -> None:
        if not self.errors and not any(self.cleaned_data[name] for name in TRIMMED):
            raise forms.ValidationError("Say what is to go.")

    def _valid(self, name: str, parse: Callable[[str], object]) -> str:
        """Return what was typed, if the command can read it."""
        typed = str(self.cleaned_data[name]).strip()
        try:
            if typed:
                parse(typed)
        except ArgumentTypeError as error:
            raise forms.ValidationError(str(error).replace("%%", "%")) from None
        return typed


TRIMMED = ("older_than", "max_turns", "to_memory", "expired")


class AgreedForm(forms.Form):
    """The yes: a word that has to be typed, and why."""

    word = forms.CharField(max_length=50, widget=forms.TextInput(attrs=_TYPED))
    reason = forms.CharField(max_length=200, widget=forms.TextInput(attrs={"class": "vTextField"}))

    def __init__(self, word: str, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self._word = word
        self.fields["word"].label = f"Type “{word}” to agree"

    def clean_word(self) -> str:
        if self.cleaned_data["word"] != self._word:
            raise forms.ValidationError(f"This is not “{self._word}”. Nothing was changed.")
        return self._word


class DualWriteForm(AgreedForm):
    """The same for a switch of dual write, which needs no plan."""

    since = forms.FloatField(widget=forms.HiddenInput)
    """When the switch was made that was the newest one when the form was shown."""
