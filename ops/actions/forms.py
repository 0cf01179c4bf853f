"""What is asked for before an action: what to do, and then a yes that is typed, with a reason."""

from django import forms

from conversations.stores import ALIASES, BACKENDS

NAMES = {alias: BACKENDS[alias].label for alias in ALIASES}
_TYPED = {"class": "vTextField", "autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}


class FailoverForm(forms.Form):
    """Where traffic is to go."""

    to = forms.ChoiceField(label="To", choices=[(alias, NAMES[alias]) for alias in ALIASES], widget=forms.RadioSelect)


class AgreedForm(forms.Form):
    """The yes: a word that has to be typed, and why."""

    word = forms.CharField(max_length=50, widget=forms.TextInput(attrs=_TYPED))
    reason = forms.CharField(max_length=200, widget=forms.TextInput(attrs={"class": "vTextField"}))

    def __init__(self, word: str, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self._word = word
        self.fields["word"].label = f"Type {word} to agree"

    def clean_word(self) -> str:
        if self.cleaned_data["word"] != self._word:
            raise forms.ValidationError(f"This is not “{self._word}”. Nothing was changed.")
        return self._word


class DualWriteForm(AgreedForm):
    """The same for a switch of dual write, which needs no plan."""

    since = forms.FloatField(widget=forms.HiddenInput)
    """When the switch was made that was the newest one when the form was shown."""
