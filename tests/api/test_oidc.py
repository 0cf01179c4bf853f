"""Tokens of an OpenID Connect issuer: a real one over HTTP, with real keys, and all that forged ones may try."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pytest_django import Settings

from conversations import oidc
from conversations.runtime import gauges, issuer, revoked
from tests.api.talking import ask, delete, get, post, sample
from tests.api.test_errors import refused
from tests.api.test_tokens import bearer
from tests.builders import a_session, make_token
from tests.issuer import AUDIENCE, Issuer

QUESTION = {"question": "What is Redis?"}


@pytest.fixture
def there(settings: Settings) -> Iterator[Issuer]:
    """An issuer with one key, which the service knows."""
    one = Issuer()
    settings.CHAT_AUTH, settings.CHAT_RATE = "token", ""
    settings.OIDC_ISSUER, settings.OIDC_AUDIENCE = one.url, AUDIENCE
    one.add_key()
    one.start()
    issuer.forget()
    try:
        issuer.follow()
        yield one
    finally:
        one.stop()
        issuer.forget()
        issuer._file().unlink(missing_ok=True)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait between two fetches."""
    monkeypatch.setattr(issuer, "AGAIN", 0.0)
    monkeypatch.setattr(issuer, "EVERY", 0.0)


def encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def accepted(token: str) -> bool:
    """Return whether the token is accepted; assert that a refusal is a clean one."""
    response = post(QUESTION, **bearer(token))
    if response.status_code == 200:
        return True
    refused(response, 401, "authentication_failed")
    assert response["WWW-Authenticate"] == "Bearer"
    return False


class TestAccepted:
    @pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
    def test_a_token_of_the_issuer(self, there: Issuer, soon: None, algorithm: str) -> None:
        there.add_key("two", algorithm)
        issuer.follow()
        headers = bearer(there.token("two"))
        session = ask("What is Redis?", headers=headers)["session_id"]
        assert ask("And?", session, headers=headers)["msg_count_before"] == 2

    def test_the_keys_are_found_by_the_issuers_description_or_the_setting(
        self, there: Issuer, settings: Settings
    ) -> None:
        assert there.asked == ["/realm/.well-known/openid-configuration", "/realm/keys"]
        settings.OIDC_JWKS_URL = there.jwks_url
        issuer.forget()
        issuer.follow()
        assert there.asked[2:] == ["/realm/keys"]
        assert accepted(there.token())

    def test_one_of_several_audiences(self, there: Issuer) -> None:
        assert accepted(there.token(aud=["another", AUDIENCE]))

    def test_a_clock_that_differs_a_little(self, there: Issuer) -> None:
        now = int(time.time())
        assert accepted(there.token(exp=now - 10))
        assert accepted(there.token(iat=now + 10, nbf=now + 10))

    def test_our_own_tokens_as_before(self, there: Issuer) -> None:
        assert accepted(make_token("somebody"))
        there.stop()
        issuer.forget()
        assert accepted(make_token("somebody"))

    def test_no_request_asks_the_issuer(self, there: Issuer) -> None:
        before = list(there.asked)
        for _ in range(3):
            assert accepted(there.token())
            assert not accepted(there.token(headers={"kid": "unknown"}))
        assert there.asked == before


class TestRefused:
    @pytest.mark.parametrize(
        "changed",
        [
            {"aud": "another"}, {"aud": ["another"]}, {"aud": None}, {"aud": {}}, {"iss": "https://other.example"},
            {"iss": None}, {"iss": ""}, {"exp": None}, {"exp": "soon"}, {"exp": 1e400}, {"iat": None}, {"iat": {}},
            {"sub": None}, {"sub": 5}, {"exp": 1}, {"iat": 9_999_999_999}, {"nbf": 9_999_999_999}, {"jti": 5},
            {"tenant": ""}, {"tenant": "a:b"}, {"tenant": "a\n"}, {"tenant": ["a"]}, {"tenant": 5}, {"tenant": False},
            {"tenant": "a" * 129}, {"tenant": "oidc-of-another"}, {"scope": 5}, {"scope": {"ask": True}},
        ],
        ids=str,
    )  # fmt: skip
    def test_what_it_says_is_wrong(self, there: Issuer, changed: dict[str, Any]) -> None:
        assert accepted(there.token())
        assert not accepted(there.token(**changed))

    def test_a_tenant_that_is_null(self, there: Issuer) -> None:
        algorithm, private = there.private["one"]
        said = there.claims() | {"tenant": None}
        assert not accepted(jwt.encode(said, private, algorithm, headers={"kid": "one"}))

    def test_an_expired_one_is_counted_as_that(self, there: Issuer) -> None:
        gauges.start()
        before = sample("tokens_refused_total", reason="expired")
        assert "expired" in refused(
            post(QUESTION, **bearer(there.token(exp=int(time.time()) - 60))), 401, "authentication_failed"
        )
        assert sample("tokens_refused_total", reason="expired") == before + 1

    def test_no_algorithm(self, there: Issuer) -> None:
        for name in ("none", "None", "NONE", "nOnE", "", None):
            header, claims = {"alg": name, "typ": "JWT", "kid": "one"}, there.claims()
            for signature in ("", "x", there.token().rpartition(".")[2]):
                assert not accepted(f"{encoded(header)}.{encoded(claims)}.{signature}")

    @pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
    @pytest.mark.parametrize("form", [PublicFormat.PKCS1, PublicFormat.SubjectPublicKeyInfo])
    def test_a_secret_made_of_the_public_key(self, there: Issuer, algorithm: str, form: PublicFormat) -> None:
        """PyJWT does not sign so; a forger does."""
        secret = there.private["one"][1].public_key().public_bytes(Encoding.PEM, form)
        for key in (secret, secret.strip(), json.dumps(there.keys[0]).encode(), b""):
            signed = f"{encoded({'alg': algorithm, 'kid': 'one'})}.{encoded(there.claims())}"
            made = hmac.new(key, signed.encode(), getattr(hashlib, f"sha{algorithm[2:]}")).digest()
            assert not accepted(f"{signed}.{base64.urlsafe_b64encode(made).rstrip(b'=').decode()}")

    @pytest.mark.parametrize("alg", ["RS512", "PS256"])
    def test_another_algorithm_than_the_keys_own(self, there: Issuer, soon: None, alg: str) -> None:
        private = there.add_key("fixed", alg="RS256")
        issuer.follow()
        assert accepted(there.token("fixed"))
        assert not accepted(jwt.encode(there.claims(), private, alg, headers={"kid": "fixed"}))

    def test_a_key_that_the_token_brings_itself(self, there: Issuer) -> None:
        mine = rsa.generate_private_key(65537, 2048)
        jwk = there.public(mine, "RS256")
        address = {"jku": f"{there.url}/mine", "x5u": f"{there.url}/mine", "jwk": jwk}
        before = list(there.asked)
        for kid in ("one", "mine", "../../etc/passwd", there.jwks_url):
            token = jwt.encode(there.claims(), mine, "RS256", headers={"kid": kid, **address})
            assert not accepted(token)
        assert there.asked == before

    @pytest.mark.parametrize("kid", [None, 5, ["one"], "", "two"], ids=str)
    def test_the_key_must_be_named(self, there: Issuer, kid: Any) -> None:
        head = {"alg": "RS256"} | ({} if kid is None else {"kid": kid})
        algorithm, private = there.private["one"]
        _, payload, _ = there.token().split(".")
        signing = jwt.get_algorithm_by_name(algorithm)
        signature = signing.sign(f"{encoded(head)}.{payload}".encode(), private)
        assert not accepted(f"{encoded(head)}.{payload}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}")

    def test_an_extension_that_must_be_understood(self, there: Issuer) -> None:
        assert not accepted(there.token(headers={"crit": ["exp"], "exp": 1}))

    def test_a_changed_token(self, there: Issuer) -> None:
        head, payload, signature = there.token().split(".")
        other = there.token(sub="another").split(".")[1]
        for changed in (f"{head}.{other}.{signature}", f"{head}.{payload}.{signature[:-2]}", f"{head}.{payload}.",
                        f"{head}.{payload}", f"{head}.{payload}.{signature}.x", f".{payload}.{signature}", "..",
                        f"{head}.{payload}.{signature}=", f"{head}.{payload}.{signature} x"):  # fmt: skip
            assert not accepted(changed)

    def test_one_that_is_too_long(self, there: Issuer) -> None:
        assert accepted(there.token(extra="x" * 3000))
        assert not accepted(there.token(extra="x" * 8000))

    @pytest.mark.parametrize("header", ["[" * 3000, '{"a":' * 900, "5", "null", '"x"', "{}", '{"kid":"one"}'])
    def test_a_header_that_is_none(self, there: Issuer, header: str) -> None:
        text = base64.urlsafe_b64encode(header.encode()).rstrip(b"=").decode()
        assert not accepted(f"{text}.{encoded(there.claims())}.x")

    def test_signed_words_that_are_no_claims(self, there: Issuer) -> None:
        algorithm, private = there.private["one"]
        for payload in (b"5", b"[]", b"null", b"", b"\xff", b"[" * 4000, b'{"exp": ' + b"9" * 5000 + b"}"):
            token = jwt.api_jws.encode(payload, private, algorithm, headers={"kid": "one"})
            assert not accepted(token)

    def test_where_there_is_no_issuer(self, there: Issuer, settings: Settings) -> None:
        settings.OIDC_ISSUER = ""
        assert not accepted(there.token())

    def test_a_revoked_one(self, there: Issuer) -> None:
        """By its `jti`, where that is as our ids are."""
        token, other = there.token(jti=a_session()), there.token(jti="urn:uuid:é")
        identity = jwt.decode(token, options={"verify_signature": False})["jti"]
        assert accepted(token) and accepted(other)
        revoked.revoke({identity: 9_999_999_999})
        assert not accepted(token)
        assert accepted(other)


class TestScopes:
    @pytest.mark.parametrize("scopes", [None, "", "openid profile", "asks", "read"], ids=str)
    def test_without_the_scope_it_is_403(self, there: Issuer, scopes: str | None) -> None:
        refused(post(QUESTION, **bearer(there.token(scope=scopes))), 403, "scope_missing")

    @pytest.mark.parametrize("scopes", ["ask", "openid  ask", ["ask"], ["openid", "ask", 5]], ids=str)
    def test_as_words_or_as_a_list(self, there: Issuer, scopes: Any) -> None:
        token = there.token(scope=scopes)
        assert accepted(token)
        refused(get("conversations/", **bearer(token)), 403, "scope_missing")

    def test_another_claim_has_them(self, there: Issuer, settings: Settings) -> None:
        settings.OIDC_SCOPES_CLAIM = "https://example.org/scp"
        assert accepted(there.token(scope=None, **{"https://example.org/scp": ["ask"]}))
        refused(post(QUESTION, **bearer(there.token())), 403, "scope_missing")


class TestTenants:
    def test_two_subjects_never_meet(self, there: Issuer) -> None:
        session = a_session()
        first, second = bearer(there.token(sub="first")), bearer(there.token(sub="second"))
        ask("What is Redis?", session, headers=first)
        refused(get(f"conversations/{session}/", **second), 404, "not_found")
        refused(delete(f"conversations/{session}/", **second), 404, "not_found")
        assert get(f"conversations/{session}/", **bearer(there.token(sub="first", jti="x"))).status_code == 200

    def test_subjects_of_any_text_have_names_of_their_own(self) -> None:
        subjects = ["b", 'b"', "b ", "B", "b\ud800", "é", "e\u0301"]
        pairs = [*(("https://a", subject) for subject in subjects), ("https://ab", ""), ('https://a", "b', "")]
        names = {oidc._named_for(*pair) for pair in pairs}
        assert len(names) == len(pairs)
        assert all(oidc.SESSION_ID.fullmatch(name) for name in names)

    def test_a_claim_names_the_tenant(self, there: Issuer) -> None:
        session, tenant = a_session(), a_session()
        ask("What is Redis?", session, headers=bearer(there.token(sub="first", tenant=tenant)))
        for token, status in ((there.token(sub="second", tenant=tenant), 200), (there.token(sub="first"), 404),
                              (make_token("ours", tenant), 200)):  # fmt: skip
            assert get(f"conversations/{session}/", **bearer(token)).status_code == status

    def test_another_claim_names_it(self, there: Issuer, settings: Settings) -> None:
        settings.OIDC_TENANT_CLAIM = "org"
        session, tenant = a_session(), a_session()
        ask("What is Redis?", session, headers=bearer(there.token(org=tenant, tenant="ignored")))
        assert get(f"conversations/{session}/", **bearer(make_token("ours", tenant))).status_code == 200

    def test_each_subject_has_a_rate_of_its_own_in_a_shared_tenant(self, there: Issuer, settings: Settings) -> None:
        settings.CHAT_RATE = "1/hour"
        tenant = a_session()
        statuses = [post(QUESTION, **bearer(there.token(sub=sub, tenant=tenant))).status_code for sub in "aabb"]
        assert statuses == [200, 429, 200, 429]


class TestKeys:
    def test_a_new_key_is_fetched_when_a_token_of_it_comes(
        self, there: Issuer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        there.add_key("two")
        gauges.start()
        before = sample("tokens_refused_total", reason="unknown_key")
        assert not accepted(there.token("two"))
        assert sample("tokens_refused_total", reason="unknown_key") == before + 1
        monkeypatch.setattr(issuer, "AGAIN", 0.0)
        issuer.follow()
        assert accepted(there.token("two"))

    def test_unknown_keys_make_it_be_asked_once_in_a_while(self, there: Issuer) -> None:
        before = list(there.asked)
        for number in range(20):
            assert not accepted(there.token(headers={"kid": f"unknown-{number}"}))
            issuer.follow()
        assert there.asked == before

    def test_a_key_that_was_taken_away_is_forgotten(self, there: Issuer, soon: None) -> None:
        there.add_key("two")
        there.remove_key("one")
        issuer.follow()
        assert [accepted(there.token(kid)) for kid in ("one", "two")] == [False, True]

    def test_known_keys_are_used_while_the_issuer_is_out_for_a_bounded_time(
        self, there: Issuer, soon: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        there.stop()
        issuer.follow()
        assert accepted(there.token())
        monkeypatch.setattr(issuer, "KEPT_SECONDS", 0.0)
        refused(post(QUESTION, **bearer(there.token())), 503, "issuer_unavailable")
        monkeypatch.undo()
        there.start()
        issuer.forget()
        issuer.follow()
        assert accepted(there.token())

    def test_without_keys_it_is_503_and_garbage_is_401(self, there: Issuer) -> None:
        issuer.forget()
        response = post(QUESTION, **bearer(there.token()))
        refused(response, 503, "issuer_unavailable")
        assert response["Retry-After"] == "1"
        assert not accepted("garbage")

    def test_a_process_that_starts_while_the_issuer_is_out_has_the_keys_of_before(
        self, there: Issuer, settings: Settings
    ) -> None:
        there.stop()
        issuer.forget()
        issuer.restore()
        issuer.follow()
        assert accepted(there.token())
        settings.OIDC_ISSUER = "https://another.example"
        issuer.forget()
        issuer.restore()
        assert not issuer._fetched.usable

    @pytest.mark.parametrize("kept", [b"", b"[]", b"5", b"{}", b'{"at": "x"}', b'{"at": 1, "source": 5}', b"\xff"])
    def test_a_file_that_cannot_be_read_is_ignored(self, there: Issuer, kept: bytes) -> None:
        issuer._file().write_bytes(kept)
        issuer.forget()
        issuer.restore()
        assert not issuer._fetched.usable

    @pytest.mark.parametrize(
        ("fault", "problem"),
        [
            ({"status": 500}, "status 500"),
            ({"status": 302}, "status 302"),
            ({"body": b"no JSON"}, "it is no JSON"),
            ({"body": b"[" * 5000}, "it is no JSON"),
            ({"body": b"[]"}, "there is no usable key"),
            ({"body": b'{"keys": []}'}, "there is no usable key"),
            ({"body": b'{"keys": {"kid": "one"}}'}, "there is no usable key"),
            ({"body": b'{"keys": [' + b" " * issuer.MOST_BYTES + b"]}"}, "it has more than"),
            ({"description": {"issuer": "https://other.example", "jwks_uri": "https://a.example"}}, "another issuer"),
            ({"description": []}, "another issuer"),
        ],
    )  # fmt: skip
    def test_what_is_no_jwks_changes_nothing(
        self, there: Issuer, soon: None, fault: dict[str, Any], problem: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        gauges.start()
        before = sample("issuer_fetches_total", outcome="failed")
        for name, value in fault.items():
            setattr(there, name, value)
        issuer.follow()
        (record,) = [each for each in caplog.records if each.msg == "issuer_keys_not_fetched"]
        assert problem in vars(record)["problem"]
        assert sample("issuer_fetches_total", outcome="failed") == before + 1
        assert accepted(there.token())

    @pytest.mark.parametrize(
        "url", ["http://example.org/keys", "file:///etc/passwd", "ftp://127.0.0.1/", "", 5, "http://["]
    )
    def test_keys_are_fetched_by_https_or_from_this_machine_only(self, there: Issuer, soon: None, url: Any) -> None:
        there.description = {"issuer": there.url, "jwks_uri": url}
        there.add_key("two")
        issuer.follow()
        assert not accepted(there.token("two"))

    def test_a_slow_answer_ends_in_time_and_delays_no_request(
        self, there: Issuer, soon: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each byte comes in time; all of them do not."""
        monkeypatch.setattr(issuer, "FETCH_SECONDS", 0.3)
        there.drip_seconds = 0.05
        begun = time.monotonic()
        issuer.follow()
        assert time.monotonic() < begun + 5
        assert issuer._failing
        assert accepted(there.token())

    @pytest.mark.parametrize(
        "key",
        [
            {"kty": "oct", "k": "c2VjcmV0"}, {"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}, {"alg": "HS256"},
            {"alg": "none"}, {"use": "enc"}, {"kid": None}, {"kid": 5}, {"kty": "EC"}, {"kty": None}, {"kty": []},
            {"n": "AQAB"}, {"n": 5}, {"e": "!"}, {"d": "AQAB"}, {"crv": "P-256"}, {"crv": 5},
        ],
        ids=str,
    )  # fmt: skip
    def test_an_unusable_key_is_left_out(self, there: Issuer, key: dict[str, Any]) -> None:
        other = there.keys[0] | {"kid": "odd"} | key
        found = oidc.keys_in({"keys": [other, there.keys[0], 5, None, {}]})
        assert list(found) == ["one"]

    def test_two_keys_of_one_id_are_left_out(self, there: Issuer) -> None:
        there.add_key("two", "ES256")
        assert list(oidc.keys_in({"keys": [*there.keys, there.keys[0]]})) == ["two"]

    def test_a_weak_key_is_left_out(self, there: Issuer) -> None:
        private = rsa.generate_private_key(65537, 1024)  # noqa: S505
        weak = there.public(private, "RS256") | {"kid": "weak"}
        assert oidc.keys_in({"keys": [weak]}) == {}
