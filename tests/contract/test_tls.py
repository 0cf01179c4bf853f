"""Redis over TLS: a connection can be used as soon as it is made."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from conversations.datasets import Dataset
from conversations.errors import StoreUnavailable
from conversations.stores.redis.bulk import RedisBulk
from conversations.stores.redis.misconfigured import missing_rights
from conversations.stores.redis.turns import CacheStore
from conversations.turns import History, Limits
from tests.builders import a_session, a_turn, some_turns
from tests.deploy.files import ROOT
from tests.servers import RedisServer, eventually, free_port, redis_binary, use_redis

USERS = ROOT / "deploy" / "k8s" / "base" / "redis" / "users.acl"


class TlsRedis(RedisServer):
    """A redis-server that answers over TLS alone, with a certificate of its own; `login` is user:password@, if any."""

    login = ""

    @property
    def url(self) -> str:
        return f"rediss://{self.login}127.0.0.1:{self.port}/0?ssl_ca_certs={self.directory / 'certificate.pem'}"

    @property
    def _certificate(self) -> list[str]:
        return [str(self.directory / name) for name in ("key.pem", "certificate.pem")]

    def make_certificate(self) -> "TlsRedis":
        key, certificate = self._certificate
        words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-days", "2",
                 "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate]  # fmt: skip
        subprocess.run(words, check=True, capture_output=True)
        return self

    def command(self) -> list[str]:
        key, certificate = self._certificate
        return [redis_binary(), "--port", "0", "--tls-port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                "--dir", str(self.directory), "--tls-cert-file", certificate, "--tls-key-file", key,
                "--tls-auth-clients", "no", *self.options]  # fmt: skip


def require_tls() -> None:
    words = [redis_binary(), "--tls-cluster", "no", "--no-such-option", "yes"]  # it names the first that it lacks
    refused = subprocess.run(words, capture_output=True, text=True)
    if not shutil.which("openssl") or "tls-cluster" in refused.stdout + refused.stderr:
        pytest.skip("no openssl, or a Redis without TLS")


@pytest.fixture
def over_tls(tmp_path: Path, settings: Settings) -> Iterator[CacheStore]:
    require_tls()
    server = TlsRedis(tmp_path / "redis")
    try:
        server.make_certificate().start()
        use_redis(settings, server.url)
        yield CacheStore("redis", Limits(60, 10, 100_000))
    finally:
        server.kill()


def test_a_new_connection_serves_the_first_command(over_tls: CacheStore) -> None:
    """The server's session tickets come after it is made, and look like an answer that nobody has read."""
    for _ in range(10):
        over_tls.ping()
        session = a_session()
        assert over_tls.load(session) is None
        assert over_tls.append(session, a_turn()).stored
        over_tls._client._turns._idle.clear()
        over_tls._client.redis.connection_pool.disconnect()


def test_sentinels_and_their_primary_by_tls_with_a_user(tmp_path: Path, settings: Settings) -> None:
    require_tls()
    users = ("--user", "chat", "on", ">of-chat", "~*", "+@all", "--user", "default", "off")
    server = TlsRedis(tmp_path / "redis", *users).make_certificate()
    server.login = "chat:of-chat@"
    certificate = server.directory / "certificate.pem"
    watching = tmp_path / "sentinel.conf"
    port = free_port()
    lines = [
        "port 0", f"tls-port {port}", "bind 127.0.0.1", "tls-auth-clients no", "tls-replication yes",
        f"tls-cert-file {certificate}", f"tls-key-file {certificate.with_name('key.pem')}",
        f"tls-ca-cert-file {certificate}", f"sentinel monitor main 127.0.0.1 {server.port} 1",
        "sentinel auth-user main chat", "sentinel auth-pass main of-chat",
    ]  # fmt: skip
    watching.write_text("\n".join(lines) + "\n")
    with (tmp_path / "log").open("wb") as log:
        sentinel = subprocess.Popen([redis_binary(), str(watching), "--sentinel"], stdout=log, stderr=log)
    try:
        server.start()
        settings.REDIS_SENTINEL_PASSWORD = ""
        use_redis(settings, f"rediss+sentinel://chat:of-chat@127.0.0.1:{port}/main/0?ssl_ca_certs={certificate}")
        store, session, turn = CacheStore("redis", Limits(60, 10, 100_000)), a_session(), a_turn()
        eventually(lambda: reaches(store), "the sentinel names no primary")
        store.append(session, turn)
        assert store.load(session) == History.of([turn])
    finally:
        sentinel.kill()
        sentinel.wait()
        server.kill()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_a_cluster_by_tls_with_a_user_of_few_rights(tmp_path: Path, settings: Settings, host: str) -> None:
    """Those of the deployment's service, as they are."""
    require_tls()
    rights = _rights_of_the_service()
    users = ("--user", "chat", "on", ">of-chat", "resetchannels", "-@all", *rights, "--user", "default", "off")
    bus, limits = free_port(), Limits(60, 10, 100_000)
    options = ("--cluster-enabled", "yes", "--cluster-port", str(bus), "--tls-cluster", "yes")
    server = TlsRedis(tmp_path / "redis", *options, *users).make_certificate()
    certificate = server.directory / "certificate.pem"
    server.options += ("--bind", "127.0.0.1", "::1", "--tls-ca-cert-file", str(certificate))
    admin = ("--user", "admin", "on", ">of-admin", "~*", "+@all")
    server.options += admin
    server.login = "admin:of-admin@"
    try:
        server.start()
        with server.client() as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
        url = f"rediss+cluster://chat:of-chat@{host}:{server.port}?ssl_ca_certs={certificate}&ssl_check_hostname=false"
        use_redis(settings, url)
        store, session, turns = CacheStore("redis", limits), a_session(), some_turns(2)
        eventually(lambda: reaches(store), "the cluster does not answer")
        assert missing_rights("redis") == ""
        store.append(session, turns[0])
        store.append_after(session, store.load(session) or History(), turns[1], flag=True)
        assert store.load(session) == History.of(turns)
        assert session in store.flags(100).sessions
        store.clear_flag(session, store.inspect(session).flag or "")
        store.flags(100)
        dataset = Dataset("one", 1, store.report().instance)
        assert store.identify(dataset, None)
        assert store.beat("a process", dataset) == 2
        assert store.lease("one", "a process", 5)
        assert session in store.scan("", 100).sessions
        assert [page for page in RedisBulk(store).entries(100) if page]
        assert [place.session for place in store.newest().places] == [session]
        assert store.delete(session, turns[1].answer.id)
    finally:
        server.kill()


def _rights_of_the_service() -> list[str]:
    """Return what users.acl gives the service beside its password."""
    text = USERS.read_text()
    [line] = re.findall(r"^user onesource on \S+ (.*(?:\n .*)*)", text, re.MULTILINE)
    return [word for word in line.split() if word[0] in "~+"]


def reaches(store: CacheStore) -> bool:
    try:
        store.ping()
    except StoreUnavailable:
        return False
    return True
