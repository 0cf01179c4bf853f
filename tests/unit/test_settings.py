"""What the service opens by itself depends on what it uses: only embedded stores on loopback are one person's own."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from pytest_django import Settings

from conversations import checks
from conversations.stores.mongo import djongo
from tests.configured import DEPLOYED, LONG_SECRET, run, settings_with

REDIS = {"REDIS_URL": DEPLOYED["REDIS_URL"], "SECRET_KEY": LONG_SECRET}
MONGO = {"MONGO_URL": DEPLOYED["MONGO_URL"], "SECRET_KEY": LONG_SECRET}
OPEN = "conversations.W002"


@pytest.mark.parametrize(
    ("environment", "auth", "bind"),
    [
        ({}, "open", "127.0.0.1"),
        ({"BIND": "127.1.2.3"}, "open", "127.1.2.3"),
        ({"BIND": "[::1]"}, "open", "[::1]"),
        ({"BIND": "localhost"}, "open", "localhost"),
        ({"BIND": "0.0.0.0"}, "token", "0.0.0.0"),  # noqa: S104
        ({"BIND": "::"}, "token", "::"),
        ({"BIND": "chat.example.org"}, "token", "chat.example.org"),
        (REDIS, "token", "127.0.0.1"),
        (MONGO, "token", "127.0.0.1"),
        (DEPLOYED, "token", "0.0.0.0"),  # noqa: S104
        (DEPLOYED | {"BIND": "127.0.0.1"}, "token", "127.0.0.1"),
    ],
)
def test_auth_is_open_only_beside_embedded_stores_on_loopback(
    tmp_path: Path, environment: dict[str, str], auth: str, bind: str
) -> None:
    found = settings_with(VAR_DIR=str(tmp_path), **environment)
    assert (found["CHAT_AUTH"], found["BIND"]) == (auth, bind)


@pytest.mark.parametrize(
    "secret",
    ["", "short", "a" * 64, "tests-only" * 4 + "123456789", "django-insecure-" + LONG_SECRET],
    ids=["none", "short", "one character", "49 characters", "startproject's"],
)
@pytest.mark.parametrize("urls", [DEPLOYED, REDIS, MONGO], ids=["both", "redis", "mongo"])
def test_a_weak_secret_key_stops_the_start(tmp_path: Path, urls: dict[str, str], secret: str) -> None:
    done = run("manage.py", "check", **urls | {"VAR_DIR": str(tmp_path), "SECRET_KEY": secret})
    assert done.returncode == 2
    assert done.stderr.startswith("onesource: SECRET_KEY is not ")
    assert done.stderr.count("\n") == 1
    assert not (secret and secret in done.stderr)
    assert not (tmp_path / "secret_key").exists()


def test_a_weak_secret_key_stops_embedded_stores_beyond_loopback(tmp_path: Path) -> None:
    done = run("manage.py", "check", VAR_DIR=str(tmp_path), BIND="0.0.0.0", SECRET_KEY="x")  # noqa: S104, S106
    assert done.returncode == 2
    assert done.stderr.startswith("onesource: SECRET_KEY is not usable: ")


def test_embedded_stores_alone_take_any_secret_key(tmp_path: Path) -> None:
    assert settings_with(VAR_DIR=str(tmp_path), SECRET_KEY="mine")["SECRET_KEY"] == "mine"
    assert len(settings_with(VAR_DIR=str(tmp_path))["SECRET_KEY"]) > 50


@pytest.mark.parametrize(
    ("auth", "bind", "warned"),
    [("open", "0.0.0.0", True), ("open", "127.0.0.1", False), ("token", "0.0.0.0", False)],  # noqa: S104
)
def test_the_deployment_check_warns_of_open_auth_beyond_loopback(
    tmp_path: Path, auth: str, bind: str, warned: bool
) -> None:
    environment = DEPLOYED | {"VAR_DIR": str(tmp_path), "CHAT_AUTH": auth, "BIND": bind}
    found = run("manage.py", "check", "--deploy", "--tag=onesource", **environment).stderr
    assert (OPEN in found, "CHAT_AUTH=token" in found) == (warned, warned)


@pytest.mark.parametrize("path", ["", "/run/secrets/backup_key"])
def test_the_deployment_check_mentions_plain_backups(tmp_path: Path, path: str) -> None:
    environment = DEPLOYED | {"VAR_DIR": str(tmp_path), "BACKUP_KEY_FILE": path}
    found = run("manage.py", "check", "--deploy", "--tag=onesource", "--fail-level=WARNING", **environment)
    assert (found.returncode, "conversations.I001" in found.stderr) == (0, not path)


@pytest.mark.parametrize("answerer", ["openai", "anthropic"])
def test_an_answerer_without_its_package_stops_the_start(
    answerer: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    settings.ANSWERER, settings.LLM_MODEL = answerer, "a-model"
    (problem,) = checks.answerer(None)
    assert (problem.id, "requirements-models.txt" in str(problem.hint)) == ("conversations.E003", True)


@pytest.mark.parametrize(
    ("environment", "subdomains"),
    [
        ({}, False),
        ({"HTTPS": "1"}, False),
        ({"HSTS_SUBDOMAINS": "1"}, False),
        ({"HTTPS": "1", "HSTS_SUBDOMAINS": "1"}, True),
    ],
)
def test_https_promises_nothing_for_other_hosts_by_itself(environment: dict[str, str], subdomains: bool) -> None:
    found = settings_with(**DEPLOYED, **environment)
    assert bool(found["SECURE_HSTS_SECONDS"]) == ("HTTPS" in environment)
    assert found["SECURE_HSTS_INCLUDE_SUBDOMAINS"] == found["SECURE_HSTS_PRELOAD"] == subdomains


def test_the_deployment_check_has_nothing_to_say_of_https(tmp_path: Path) -> None:
    """Whether other hosts of a domain speak https is not the service's to know, so it is no warning either."""
    environment = DEPLOYED | {"VAR_DIR": str(tmp_path), "HTTPS": "1"}
    done = run("manage.py", "check", "--deploy", "--fail-level=WARNING", **environment)
    assert done.returncode == 0, done.stderr


def test_an_unknown_engine_of_mongodb_stops_the_start(tmp_path: Path) -> None:
    done = run("manage.py", "check", **DEPLOYED, VAR_DIR=str(tmp_path), MONGO_ENGINE="mongoengine")
    assert done.returncode == 2
    assert done.stderr == "onesource: MONGO_ENGINE is not usable: must be one of: mongodb, djongo\n"


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("CHAT_CONCURRENT", "0", "must be a whole number from 1 to 10000"),
        ("CHAT_CONCURRENT", "10001", "must be a whole number from 1 to 10000"),
        ("TENANT_MAX_BYTES", "0", "must be a whole number of at least 1"),
    ],
)
def test_a_limit_that_is_none_stops_the_start(tmp_path: Path, name: str, value: str, problem: str) -> None:
    done = run("manage.py", "check", **DEPLOYED, VAR_DIR=str(tmp_path), **{name: value})
    assert done.returncode == 2
    assert done.stderr == f"onesource: {name} is not usable: {problem}\n"


def test_an_engine_that_is_not_installed_stops_the_start_and_names_the_cure(tmp_path: Path) -> None:
    code = "import sys; sys.modules['djongo'] = None; import manage; sys.argv = ['manage.py', 'check']; manage.main()"
    done = run("-c", code, **DEPLOYED, VAR_DIR=str(tmp_path), MONGO_ENGINE="djongo")
    assert done.returncode == 2
    install = "pip install --no-deps -r requirements-djongo.txt"
    assert done.stderr == f"onesource: MONGO_ENGINE is not usable: djongo is not installed: {install}\n"


@pytest.mark.parametrize(
    ("version", "sqlparse", "usable"),
    [("1.3.7", "0.2.4", True), ("1.3.7", "0.6.1", False), ("1.3.6", "0.2.4", False)],
)
def test_djongo_is_not_used_beside_other_versions(
    monkeypatch: pytest.MonkeyPatch, version: str, sqlparse: str, usable: bool
) -> None:
    """requirements.txt, installed again after it, brings another sqlparse."""
    monkeypatch.setitem(sys.modules, "djongo", SimpleNamespace(__version__=version))
    monkeypatch.setattr("sqlparse.__version__", sqlparse)
    assert (djongo.problem() == "") is usable


KEY = "of tests: thirty-two characters+"
ANOTHER = "another one; it has some more characters"


def test_chat_keys_are_read_in_their_order(tmp_path: Path) -> None:
    found = settings_with(VAR_DIR=str(tmp_path), CHAT_KEYS=f" new:{KEY} ,old-1:{ANOTHER}, ")
    assert list(found["CHAT_KEYS"].items()) == [("new", KEY), ("old-1", ANOTHER)]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (KEY, "key 1 must look like id:secret"),
        (f":{KEY}", "key 1 must look like id:secret"),
        ("new:", "key 1 must look like id:secret"),
        (f"new:{KEY},a.b:{KEY}", "key 2 must look like id:secret"),
        (f"{'x' * 33}:{KEY}", "key 1 must look like id:secret"),
        (f"new:{KEY[:31]}", "the secret of key 1 needs 32 characters or more"),
        (f"new:{'a' * 64}", "the secret of key 1 needs 32 characters or more, 5 of them different"),
        (f"new:{KEY},new:{ANOTHER}", "two keys have the same id"),
        (f"main:{KEY}", "the id main is that of the key made of SECRET_KEY"),
    ],
)  # fmt: skip
def test_unusable_chat_keys_stop_the_start_and_are_not_repeated(tmp_path: Path, value: str, problem: str) -> None:
    done = run("manage.py", "check", VAR_DIR=str(tmp_path), CHAT_KEYS=value)
    assert done.returncode == 2
    assert done.stderr.startswith(f"onesource: CHAT_KEYS is not usable: {problem}")
    assert done.stderr.count("\n") == 1
    assert not any(part and part in done.stderr for part in (KEY[:31], "a" * 64, ANOTHER))


@pytest.mark.parametrize("switch", ["0", "1"])
def test_the_second_factor_is_asked_for_where_it_is_switched_on(switch: str) -> None:
    found = settings_with(**DEPLOYED, ADMIN_OTP=switch)
    assert found["ADMIN_OTP"] == (switch == "1")
    assert ("django_otp.middleware.OTPMiddleware" in found["MIDDLEWARE"]) == (switch == "1")


def test_the_address_of_a_login_is_a_proxys_word_only_with_https() -> None:
    assert [settings_with(**DEPLOYED, HTTPS=each)["REST_FRAMEWORK"]["NUM_PROXIES"] for each in "01"] == [0, 1]


ISSUER = {"OIDC_ISSUER": "https://login.example.org/realm", "OIDC_AUDIENCE": "onesource"}


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        (ISSUER | {"OIDC_ISSUER": "http://login.example.org"}, "OIDC_ISSUER is not usable: it must be https"),
        (ISSUER | {"OIDC_ISSUER": "login.example.org"}, "OIDC_ISSUER is not usable: it must look like https://"),
        (ISSUER | {"OIDC_JWKS_URL": "http://login.example.org/keys"}, "OIDC_JWKS_URL is not usable: it must be https"),
        (ISSUER | {"OIDC_AUDIENCE": " "}, "OIDC_AUDIENCE is not set"),
        (ISSUER | {"OIDC_ISSUER": ""}, "OIDC_ISSUER is not set"),
    ],
)
def test_an_unusable_issuer_stops_the_start(tmp_path: Path, environment: dict[str, str], problem: str) -> None:
    done = run("manage.py", "check", VAR_DIR=str(tmp_path), **environment)
    assert done.returncode == 2
    assert done.stderr.startswith(f"onesource: {problem}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("issuer", [ISSUER["OIDC_ISSUER"], "http://localhost:8080/realm", "http://[::1]:8080"])
def test_an_issuer_is_asked_by_https_or_on_this_machine(issuer: str) -> None:
    found = settings_with(**DEPLOYED, **ISSUER | {"OIDC_ISSUER": issuer})
    assert (found["OIDC_ISSUER"], found["OIDC_TENANT_CLAIM"], found["OIDC_SCOPES_CLAIM"]) == (issuer, "tenant", "scope")


@pytest.mark.parametrize(
    ("replicas", "database", "refused"),
    [("1", "", False), ("2", "", True), ("2", "sqlite:////tmp/a", True), ("2", "postgres://u:p@h/n", False)],
)
def test_several_servers_need_a_database_that_they_share(
    tmp_path: Path, replicas: str, database: str, refused: bool
) -> None:
    environment = DEPLOYED | {"VAR_DIR": str(tmp_path), "REPLICAS": replicas, "DATABASE_URL": database}
    done = run("manage.py", "check", "--tag=onesource", **environment)
    assert ("conversations.E005" in done.stderr, done.returncode == 1) == (refused, refused), done.stderr


def test_a_database_is_not_waited_for_long_unless_its_url_says_so() -> None:
    url = "postgres://u:p@h/n"
    found = [settings_with(**DEPLOYED, DATABASE_URL=each)["DATABASES"]["default"]["OPTIONS"]
             for each in (url, f"{url}?connect_timeout=9&sslmode=require")]  # fmt: skip
    assert found == [{"connect_timeout": 3}, {"connect_timeout": 9, "sslmode": "require"}]
