"""The second factor of the admin (ADMIN_OTP): a code of an authenticator app, or a recovery code."""

from base64 import b32encode
from typing import Any

import segno
from django import forms
from django.conf import settings
from django.contrib import admin
from django.contrib.admin.forms import AdminAuthenticationForm
from django.contrib.auth.signals import user_login_failed
from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.views.decorators.cache import never_cache
from django_otp import login, user_has_device
from django_otp.forms import OTPAuthenticationFormMixin
from django_otp.plugins.otp_static.models import StaticDevice, StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice

from ops import audit

RECOVERY_CODES = 10
_DIGITS = 6
_WRONG = "This code is wrong, or was used already."


class CodeField(forms.CharField):
    """A code as a person types it, with blanks or in capitals."""

    widget = forms.TextInput(attrs={"autocomplete": "one-time-code", "maxlength": 16})

    def to_python(self, value: Any) -> str:
        return "".join(str(value or "").split()).lower()


class LoginForm(OTPAuthenticationFormMixin, AdminAuthenticationForm):
    """Asks for a code beside the password. A user who has no second factor yet needs none: see `page`."""

    otp_token = CodeField(required=False, label="Code")
    otp_error_messages = OTPAuthenticationFormMixin.otp_error_messages | {
        "token_required": "Enter the code of your authenticator app, or a recovery code.",
        "invalid_token": _WRONG,
        "device_required": _WRONG,
    }

    def clean(self) -> dict[str, Any]:
        """Return the fields; a wrong code is a failed login like a wrong password."""
        fields: dict[str, Any] = super().clean()
        user = self.get_user()
        if not user_has_device(user):
            return fields
        try:
            self.clean_otp(user)
        except ValidationError as error:
            if error.code != "token_required":
                credentials = {"username": user.get_username()}
                user_login_failed.send(sender=__name__, credentials=credentials, request=self.request)
            raise
        return fields

    def _chosen_device(self, user: Any) -> Any:
        """Return what the code is of, locked until it is used up; a recovery code has letters."""
        code = self.cleaned_data.get("otp_token", "")
        kind = TOTPDevice if code.isdigit() and len(code) == _DIGITS else StaticDevice
        return kind.objects.select_for_update().filter(user=user, confirmed=True).first()

    def _update_form(self, user: Any) -> None:
        """The mixin would write the password into the page."""


class SetUpForm(forms.Form):
    """Shows that the app has the secret."""

    code = CodeField(label="Code of the app")

    def __init__(self, device: TOTPDevice, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._device = device

    def clean_code(self) -> None:
        if not self._device.verify_token(self.cleaned_data["code"]):
            raise ValidationError(_WRONG)


def is_missing(user: Any) -> bool:
    """Return whether the user may use the admin but for a second factor, and has none."""
    return bool(settings.ADMIN_OTP) and user.is_active and user.is_staff and not user_has_device(user)


@never_cache
def page(request: HttpRequest) -> HttpResponse:
    """Set up a second factor: the first one after a login by password, another one only when logged in with one."""
    if not settings.ADMIN_OTP:
        raise Http404
    user: Any = request.user
    if not is_missing(user) and not admin.site.has_permission(request):
        return redirect("admin:login")
    device = TOTPDevice.objects.filter(user=user, confirmed=False).first()
    device = device or TOTPDevice.objects.create(user=user, confirmed=False, name="app", digits=_DIGITS)
    form = SetUpForm(device, request.POST or None)
    if form.is_valid():
        return _page(request, "recovery_codes", {"title": "Recovery codes", "codes": _set_up(request, device)})
    context = {
        "title": "Second factor",
        "form": form,
        "qr": segno.make(device.config_url).svg_inline(scale=5, light="#fff"),
        "secret": b32encode(device.bin_key).decode(),
    }
    return _page(request, "second_factor", context)


@transaction.atomic
def _set_up(request: HttpRequest, device: TOTPDevice) -> list[str]:
    """Make the device the user's only one, with this session logged in by it; return its recovery codes."""
    TOTPDevice.objects.filter(user=request.user).exclude(pk=device.pk).delete()
    StaticDevice.objects.filter(user=request.user).delete()
    device.confirmed = True
    device.save()
    recovery = StaticDevice.objects.create(user=request.user, name="recovery codes")
    codes = [StaticToken.random_token() for _ in range(RECOVERY_CODES)]
    StaticToken.objects.bulk_create(StaticToken(device=recovery, token=code) for code in codes)
    login(request, device)
    request.session.cycle_key()
    audit.record("second factor", "set up", who=audit.admin_user(request))
    return codes


def _page(request: HttpRequest, name: str, context: dict[str, Any]) -> HttpResponse:
    # Who has no second factor yet sees nothing of the admin.
    bare = {} if admin.site.has_permission(request) else {"is_nav_sidebar_enabled": False, "available_apps": []}
    each = admin.site.each_context(request)
    return TemplateResponse(request, f"admin/ops/{name}.html", {**each, **bare, **context})
