"""Logins to the admin: who is locked out and when, what is recorded, and the second factor."""

import json
import logging
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import time_machine
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
from django_otp.oath import totp
from django_otp.plugins.otp_static.models import StaticToken
from django_otp.plugins.otp_totp.models import TOTPDevice
from pytest_django import Settings

from ops.models import AuditEntry
from telemetry import metrics
from telemetry.logs import JsonFormatter, hashed

LOGIN, INDEX, SET_UP = "/admin/login/", "/admin/", "/admin/second-factor/"
PASSWORD = "correct horse"
pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def op(settings: Settings) -> User:
    """A user whose password takes no time to check: some tests try a hundred."""
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    return User.objects.create_superuser("op", password=PASSWORD)


def log_in(password: str, name: str = "op", client: Client | None = None, code: str = "", **headers: str) -> Any:
    fields = {"username": name, "password": password, "otp_token": code}
    return (client or Client()).post(f"{LOGIN}?next={INDEX}", fields, **headers)  # type: ignore[arg-type]


def fail(times: int, **options: Any) -> list[int]:
    """Return the statuses of so many logins with a wrong password."""
    return [log_in("wrong", **options).status_code for _ in range(times)]


class TestLockout:
    def test_the_fifth_failure_locks_out_and_says_how_long(self) -> None:
        assert fail(4) == [200] * 4
        locked = log_in("wrong")
        assert locked.status_code == 429
        assert 895 <= int(locked["Retry-After"]) <= 900
        assert "Too many logins failed. Try again in 15 minutes." in locked.content.decode()
        assert locked["Content-Type"].startswith("text/html")

    def test_the_right_password_does_not_help_while_locked_out(self) -> None:
        fail(5)
        assert log_in(PASSWORD).status_code == 429

    def test_another_address_is_not_locked_out(self) -> None:
        fail(5)
        assert log_in(PASSWORD, REMOTE_ADDR="192.0.2.7").status_code == 302

    def test_it_ends_after_the_cool_off_time_and_trying_does_not_prolong_it(self) -> None:
        with time_machine.travel("2026-11-28 03:00:00Z", tick=False) as clock:
            fail(5)
            clock.shift(timedelta(seconds=800))
            assert log_in(PASSWORD)["Retry-After"] == "100"
            clock.shift(timedelta(seconds=101))
            assert log_in(PASSWORD).status_code == 302

    def test_a_login_forgets_the_failures_before_it(self) -> None:
        assert fail(4) == [200] * 4
        assert log_in(PASSWORD).status_code == 302
        assert fail(4) == [200] * 4

    def test_an_address_that_tries_many_names_is_locked_out(self) -> None:
        statuses = [fail(1, name=f"user{number}")[0] for number in range(20)]
        assert statuses == [200] * 19 + [429]
        assert log_in(PASSWORD).status_code == 429

    def test_a_user_guessed_at_from_many_addresses_is_locked_out(self) -> None:
        statuses = [fail(1, REMOTE_ADDR=f"192.0.2.{number}")[0] for number in range(100)]
        assert statuses == [200] * 99 + [429]

    def test_a_header_of_the_client_does_not_make_another_address_of_it(self) -> None:
        assert [fail(1, HTTP_X_FORWARDED_FOR=f"192.0.2.{number}")[0] for number in range(5)] == [200] * 4 + [429]

    def test_behind_the_trusted_proxy_its_last_entry_is_the_address(self, settings: Settings) -> None:
        settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "NUM_PROXIES": 1}
        assert [fail(1, HTTP_X_FORWARDED_FOR=f"{number}, 192.0.2.7")[0] for number in range(5)] == [200] * 4 + [429]
        assert log_in(PASSWORD, HTTP_X_FORWARDED_FOR="192.0.2.8").status_code == 302
        assert log_in(PASSWORD, HTTP_X_FORWARDED_FOR="no address").status_code == 302

    def test_what_is_kept_of_failures_is_bounded(self) -> None:
        fail(40, HTTP_USER_AGENT="a" * 10_000)
        attempt = AccessAttempt.objects.get()
        assert attempt.failures_since_start == 5
        assert len(attempt.post_data) + len(attempt.user_agent) < 6000


class TestRecords:
    @pytest.fixture
    def logged(self) -> Iterator[list[logging.LogRecord]]:
        records: list[logging.LogRecord] = []
        handler = logging.Handler()
        handler.emit = records.append  # type: ignore[method-assign]
        logging.getLogger().addHandler(handler)
        yield records
        logging.getLogger().removeHandler(handler)

    def test_a_failure_is_logged_without_a_name_or_password(self, logged: list[logging.LogRecord]) -> None:
        fail(6, name="my secret pass")
        lines = [JsonFormatter().format(record) for record in logged]
        events = [json.loads(line) for line in lines if '"login_failed"' in line]
        assert [event["outcome"] for event in events] == ["failed"] * 4 + ["locked_out", "refused"]
        assert events[0]["user"] == hashed("my secret pass")
        assert events[0]["address"] == "127.0.0.1"
        assert not [line for line in lines if "wrong" in line or "my secret pass" in line]

    def test_each_outcome_is_counted(self) -> None:
        before = {each: metrics.login_failures.labels(outcome=each)._value.get() for each in metrics.LOGIN_OUTCOMES}
        fail(7)
        for outcome, times in {"failed": 4, "locked_out": 1, "refused": 2}.items():
            assert metrics.login_failures.labels(outcome=outcome)._value.get() == before[outcome] + times

    def test_the_audit_log_has_the_user_and_the_address_but_no_refused_login(self) -> None:
        fail(9)
        entries = AuditEntry.objects.filter(action="login").order_by("pk")
        assert [(e.who, e.outcome) for e in entries] == [("op", "failed")] * 4 + [("op", "locked out")]
        assert entries[0].after == {"address": "127.0.0.1"}

    def test_the_audit_log_has_no_name_that_is_no_user(self) -> None:
        fail(1, name="my secret pass")
        assert AuditEntry.objects.latest("pk").who == f"no user, {hashed('my secret pass')}"

    def test_nothing_has_the_password(self) -> None:
        fail(5)
        attempt = AccessAttempt.objects.get()
        assert "wrong" not in f"{attempt.post_data}{attempt.get_data}{list(AuditEntry.objects.values())}"


@pytest.fixture
def otp(settings: Settings) -> None:
    settings.ADMIN_OTP = True
    at = settings.MIDDLEWARE.index("django.contrib.auth.middleware.AuthenticationMiddleware") + 1
    settings.MIDDLEWARE = [*settings.MIDDLEWARE[:at], "django_otp.middleware.OTPMiddleware", *settings.MIDDLEWARE[at:]]


def code_of(device: TOTPDevice, steps: int = 0) -> str:
    """Return what the app shows now, or so many half minutes later."""
    return f"{totp(device.bin_key, t0=-steps * 30):06}"


def set_up(client: Client) -> list[str]:
    """Set up a second factor as a person does; return the recovery codes."""
    log_in(PASSWORD, client=client)
    client.get(SET_UP)
    done = client.post(SET_UP, {"code": code_of(TOTPDevice.objects.get(confirmed=False))})
    return re.findall(r"<li><code>(\w+)</code>", done.content.decode())


class TestSecondFactor:
    def test_it_is_off_by_default(self) -> None:
        client = Client()
        assert log_in(PASSWORD, client=client)["Location"] == INDEX
        assert client.get(INDEX).status_code == 200
        assert client.get(SET_UP).status_code == 404
        assert "otp_token" not in Client().get(LOGIN).content.decode()

    def test_the_first_login_leads_to_the_set_up_and_to_nothing_else(self, otp: None) -> None:
        client = Client()
        log_in(PASSWORD, client=client)
        assert client.get(INDEX)["Location"].startswith(LOGIN)
        assert client.get(LOGIN)["Location"] == SET_UP
        page = client.get(SET_UP).content.decode()
        assert "<svg" in page
        assert "/admin/auth/" not in page

    def test_set_up_it_lets_in_and_gives_ten_recovery_codes(self, otp: None) -> None:
        client = Client()
        assert len(set(set_up(client))) == 10
        assert client.get(INDEX).status_code == 200
        assert AuditEntry.objects.latest("pk").action == "second factor"

    def test_a_wrong_code_sets_up_nothing(self, otp: None) -> None:
        client = Client()
        log_in(PASSWORD, client=client)
        client.get(SET_UP)
        assert "This code is wrong" in client.post(SET_UP, {"code": "12"}).content.decode()
        assert not TOTPDevice.objects.filter(confirmed=True).exists()

    def test_a_login_needs_the_code(self, otp: None) -> None:
        set_up(Client())
        refused = log_in(PASSWORD)
        assert "Enter the code" in refused.content.decode()
        assert PASSWORD not in refused.content.decode()
        client = Client()
        assert log_in(PASSWORD, client=client, code=code_of(TOTPDevice.objects.get(), steps=1)).status_code == 302
        assert client.get(INDEX).status_code == 200

    def test_a_code_works_once(self, otp: None) -> None:
        set_up(Client())
        assert "This code is wrong" in log_in(PASSWORD, code=code_of(TOTPDevice.objects.get())).content.decode()

    def test_a_recovery_code_works_once(self, otp: None) -> None:
        codes = set_up(Client())
        assert log_in(PASSWORD, code=f" {codes[3].upper()} ").status_code == 302
        assert "This code is wrong" in log_in(PASSWORD, code=codes[3]).content.decode()
        assert StaticToken.objects.count() == 9

    def test_an_operator_gives_a_recovery_code_by_command(self, otp: None, capsys: pytest.CaptureFixture[str]) -> None:
        set_up(Client())
        call_command("addstatictoken", "op")
        assert log_in(PASSWORD, code=capsys.readouterr().out.strip()).status_code == 302

    def test_wrong_codes_lock_out(self, otp: None) -> None:
        set_up(Client())
        statuses = [log_in(PASSWORD, code="000000").status_code for _ in range(5)]
        assert statuses == [200] * 4 + [429]
        assert AuditEntry.objects.filter(action="login").count() == 5

    def test_the_password_alone_cannot_set_up_another(self, otp: None) -> None:
        set_up(Client())
        client = Client()
        client.force_login(User.objects.get())
        assert client.get(SET_UP)["Location"] == LOGIN

    def test_a_new_one_ends_the_one_before(self, otp: None) -> None:
        client = Client()
        old = set_up(client)
        first = TOTPDevice.objects.get()
        client.get(SET_UP)
        client.post(SET_UP, {"code": code_of(TOTPDevice.objects.get(confirmed=False))})
        assert not TOTPDevice.objects.filter(pk=first.pk).exists()
        assert "This code is wrong" in log_in(PASSWORD, code=old[0]).content.decode()

    def test_who_is_no_staff_sets_up_nothing(self, otp: None) -> None:
        client = Client()
        client.force_login(User.objects.create_user("guest"))
        assert client.get(SET_UP)["Location"] == LOGIN

    def test_no_page_of_the_admin_shows_the_secrets_of_others(self, otp: None) -> None:
        client = Client()
        set_up(client)
        assert client.get("/admin/otp_totp/totpdevice/").status_code == 404
        assert client.get("/admin/otp_static/staticdevice/").status_code == 404
