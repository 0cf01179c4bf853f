"""A store that is not down but set up wrongly: one line says what, and which setting to change."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django import Settings

from conversations import stores
from conversations.errors import StoreUnavailable
from conversations.stores.redis.turns import CacheStore
from conversations.turns import Limits
from tests.builders import a_session, a_turn
from tests.certificates import Authority
from tests.clusters import ClusterOfServers
from tests.contract.test_tls import require_tls
from tests.servers import RedisServer, free_port, redis_binary, use_redis

LIMITS = Limits(60, 10, 100_000)
PASSWORD = "of-chat"  # noqa: S105


class SecuredRedis(RedisServer):
    """A redis-server that has TLS on a port, and another, without, on which a test sees that it is there."""

    def __init__(self, directory: Path, authority: Authority, certificate: tuple[Path, Path], *options: str) -> None:
        super().__init__(directory, *options)
        self.tls_port = free_port()
        self.authority = authority
        self.certificate = certificate

    def command(self) -> list[str]:
        certificate, key = map(str, self.certificate)
        return [*super().command(), "--tls-port", str(self.tls_port), "--tls-cert-file", certificate, "--tls-key-file",
                key, "--tls-ca-cert-file", str(self.authority.certificate)]  # fmt: skip

    def over_tls(self, *options: str, authority: Path | None = None, login: str = "") -> str:
        """Return its REDIS_URL with these options beside the authority."""
        given = "&".join([f"ssl_ca_certs={authority or self.authority.certificate}", *options])
        return f"rediss://{login}127.0.0.1:{self.tls_port}/0?{given}"


WITHOUT_OURS = ("--tls-auth-clients", "no")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    require_tls()
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[SecuredRedis]:
    """Wants no certificate of its clients, but a user."""
    users = ("--user", "chat", "on", f">{PASSWORD}", "~*", "+@all", "--user", "reader", "on", ">of-reader", "~*",
             "+@read", "+@connection", "+info", "+time", "+script")  # fmt: skip
    server = SecuredRedis(
        tmp_path_factory.mktemp("secured"), authority, authority.certify("server"), *WITHOUT_OURS, *users
    )
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[SecuredRedis]:
    """Wants a certificate of its clients."""
    server = SecuredRedis(tmp_path_factory.mktemp("mutual"), authority, authority.certify("mutual"))
    server.start()
    yield server
    server.kill()


def problem(settings: Settings, url: str) -> str:
    """Return the line for a Redis that does not answer at that URL."""
    use_redis(settings, url)
    store = CacheStore("redis", LIMITS)
    with pytest.raises(StoreUnavailable) as out:
        store.load(a_session())  # an outage, and not an empty conversation
    return one_line(stores.misconfigured("redis", out.value))


def one_line(text: str) -> str:
    assert "\n" not in text
    assert "Traceback" not in text
    assert not re.search("of-chat|of-reader|guessed", text), "a password"
    return text


def option(name: str, path: Path) -> str:
    return f"{name}={path}"


def test_with_user_authority_and_certificate_all_is_well(
    mutual: SecuredRedis, secured: SecuredRedis, authority: Authority, settings: Settings
) -> None:
    certificate, key = authority.certify("client")
    ours = option("ssl_certfile", certificate), option("ssl_keyfile", key)
    for url in (mutual.over_tls(*ours), secured.over_tls(login=f"chat:{PASSWORD}@")):
        use_redis(settings, url)
        store = CacheStore("redis", LIMITS)
        assert store.append(a_session(), a_turn()).stored
        assert stores.missing_rights("redis") == stores.unusable_files("redis") == ""


def test_an_authority_that_is_not_known(secured: SecuredRedis, tmp_path: Path, settings: Settings) -> None:
    other = Authority(tmp_path, "other").certificate
    assert problem(settings, secured.over_tls(authority=other)) == (
        "Redis has a certificate of an authority that is not known here: set ssl_ca_certs in REDIS_URL to the "
        "authority's file"
    )


@pytest.mark.parametrize(
    ("host", "begins", "ends", "line"),
    [
        ("127.0.0.1", -3, -2, "Redis has a certificate that has expired: renew it there"),
        ("127.0.0.1", 2, 3, "Redis has a certificate that is not valid yet: compare the clocks"),
        ("127.0.0.2", -1, 1, "Redis has a certificate of another host: use the name that it certifies"),
        ("elsewhere.example", -1, 1, "Redis has a certificate of another host: use the name that it certifies"),
    ],
)
def test_a_certificate_that_is_not_right(
    host: str, begins: int, ends: int, line: str, authority: Authority, tmp_path: Path, settings: Settings
) -> None:
    wrong = authority.certify("wrong", host, begins=begins, ends=ends)
    server = SecuredRedis(tmp_path / "redis", authority, wrong, *WITHOUT_OURS)
    try:
        server.start()
        assert problem(settings, server.over_tls()).startswith(line)
    finally:
        server.kill()


def test_a_certificate_of_ours_that_is_wanted(mutual: SecuredRedis, settings: Settings) -> None:
    assert problem(settings, mutual.over_tls()) == (
        "Redis wants a certificate of this service, and got none: set ssl_certfile and ssl_keyfile in REDIS_URL"
    )


@pytest.mark.parametrize("expired", [True, False])
def test_a_certificate_of_ours_that_is_refused(
    expired: bool, mutual: SecuredRedis, authority: Authority, tmp_path: Path, settings: Settings
) -> None:
    by = authority if expired else Authority(tmp_path, "stranger")
    certificate, key = by.certify("ours", begins=-3, ends=-2 if expired else 1)
    line = problem(settings, mutual.over_tls(option("ssl_certfile", certificate), option("ssl_keyfile", key)))
    assert "ssl_certfile" in line, line


@pytest.mark.parametrize(("login", "line"), [
    ("chat:guessed@", "Redis knows no such user, or refuses the password: correct the user and the password in "),
    ("nobody:guessed@", "Redis knows no such user, or refuses the password: correct the user and the password in "),
])  # fmt: skip
def test_a_wrong_password_and_an_unknown_user(login: str, line: str, secured: SecuredRedis, settings: Settings) -> None:
    assert problem(settings, secured.over_tls(login=login)) == f"{line}REDIS_URL"


def test_a_password_that_is_wanted_and_one_that_is_not(tmp_path: Path, settings: Settings) -> None:
    server = RedisServer(tmp_path)
    try:
        server.start()
        line = problem(settings, f"redis://:guessed@127.0.0.1:{server.port}/0")
        assert line.startswith("Redis has no password, and has got one: remove it")
        with server.client() as client:
            client.config_set("requirepass", "of-chat")
        line = problem(settings, f"redis://127.0.0.1:{server.port}/0")
        assert line == "Redis wants a password, and has got none: set the user and the password in REDIS_URL"
    finally:
        server.kill()


def test_a_user_without_rights_is_told_which(secured: SecuredRedis, settings: Settings) -> None:
    use_redis(settings, secured.over_tls(login="reader:of-reader@"))
    store = CacheStore("redis", LIMITS)
    assert store.load(a_session()) is None  # it may read
    line = one_line(stores.missing_rights("redis"))
    missing = "DEL, UNLINK, PERSIST, SET, EXPIRE, HDEL, ZADD, ZREM, EVALSHA"
    assert line == f"Redis refuses its user {missing} (NOPERM): give the user of REDIS_URL these rights"
    with pytest.raises(StoreUnavailable) as refused:
        store.append(a_session(), a_turn())
    assert "NOPERM" in one_line(stores.misconfigured("redis", refused.value))


def test_looking_for_rights_changes_nothing(tmp_path: Path, settings: Settings) -> None:
    server = RedisServer(tmp_path)
    try:
        server.start()
        use_redis(settings, server.url)
        assert stores.missing_rights("redis") == ""
        with server.client() as client:
            assert client.dbsize() == 0
    finally:
        server.kill()


def test_tls_where_there_is_none_and_none_where_it_is_wanted(secured: SecuredRedis, settings: Settings) -> None:
    line = problem(settings, f"redis://chat:{PASSWORD}@127.0.0.1:{secured.tls_port}/0")
    assert line == (
        f"Redis at 127.0.0.1:{secured.tls_port} is reached by TLS alone: REDIS_URL has to begin with rediss"
    )
    there = f"rediss://127.0.0.1:{secured.port}/0?ssl_ca_certs={secured.authority.certificate}"
    assert problem(settings, there) == (
        f"Redis at 127.0.0.1:{secured.port} has no TLS on this port: use its TLS port, or a REDIS_URL without it"
    )


def test_files_that_cannot_be_used(
    secured: SecuredRedis, authority: Authority, tmp_path: Path, settings: Settings
) -> None:
    certificate, _ = authority.certify("one")
    _, another = authority.certify("another")
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for options, line in (
        ([option("ssl_certfile", certificate), option("ssl_keyfile", tmp_path / "none")],
         f"ssl_keyfile in REDIS_URL is {tmp_path}/none, which cannot be read: No such file or directory"),
        ([option("ssl_certfile", certificate), option("ssl_keyfile", another)],
         "ssl_keyfile in REDIS_URL is not the key of the certificate in ssl_certfile"),
    ):  # fmt: skip
        assert problem(settings, secured.over_tls(*options)) == line
        assert stores.unusable_files("redis") == line
    assert problem(settings, secured.over_tls(authority=empty)).endswith("empty.pem, which has no certificate")
    assert "cannot be read: No such" in problem(settings, secured.over_tls(authority=tmp_path / "none"))


def test_a_store_that_is_down_is_not_misconfigured(secured: SecuredRedis, settings: Settings) -> None:
    down = free_port()
    assert problem(settings, f"redis://127.0.0.1:{down}/0") == ""
    assert problem(settings, secured.over_tls().replace(str(secured.tls_port), str(down))) == ""


def test_a_cluster(redis_cluster: ClusterOfServers, settings: Settings) -> None:
    use_redis(settings, redis_cluster.url)
    assert stores.missing_rights("redis") == stores.unusable_files("redis") == ""
    nodes = redis_cluster.url.partition("://")[2]
    line = problem(settings, f"redis+cluster://user:guessed@{nodes}")
    assert line == "Redis knows no such user, or refuses the password: correct the user and the password in REDIS_URL"
    line = problem(settings, f"rediss+cluster://{nodes}")
    assert line.endswith("has no TLS on this port: use its TLS port, or a REDIS_URL without it")
    assert problem(settings, f"redis+cluster://127.0.0.1:{free_port()}") == ""


def test_a_user_of_a_cluster_without_rights(redis_cluster: ClusterOfServers, settings: Settings) -> None:
    nodes = redis_cluster.url.partition("://")[2]
    rights = "~* +@read +@connection +info +time +script +cluster|nodes"
    for server in redis_cluster.nodes:
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "reader", "on", ">of-reader", *rights.split())
    try:
        url = f"redis+cluster://reader:of-reader@{nodes}"
        assert problem(settings, url).startswith("Redis refuses its user CLUSTER SLOTS (NOPERM)")
        for server in redis_cluster.nodes:
            with server.client() as client:
                client.execute_command(
                    "ACL", "SETUSER", "reader", "+cluster|slots", "-cluster|nodes", "-asking", "-hkeys"
                )
        use_redis(settings, url)
        missing = (
            "DEL, UNLINK, PERSIST, SET, EXPIRE, HDEL, ZADD, ZREM, EVALSHA, HKEYS, ASKING, CLUSTER INFO, CLUSTER NODES"
        )
        assert f"its user {missing} (NOPERM)" in one_line(stores.missing_rights("redis"))
    finally:
        for server in redis_cluster.nodes:
            with server.client() as client:
                client.execute_command("ACL", "DELUSER", "reader")


def test_sentinels_that_refuse_and_that_watch_another_service(tmp_path: Path, settings: Settings) -> None:
    watching = tmp_path / "sentinel.conf"
    port = free_port()
    watching.write_text(f'port {port}\nbind 127.0.0.1\nrequirepass "of-chat"\n')
    server = Sentinel(tmp_path, watching, port)
    try:
        server.start()
        url = f"redis+sentinel://127.0.0.1:{port}/main/0"
        settings.REDIS_SENTINEL_PASSWORD = "guessed"  # noqa: S105
        line = problem(settings, url)
        assert line.endswith("refuses the password: correct REDIS_SENTINEL_PASSWORD")
        settings.REDIS_SENTINEL_PASSWORD = PASSWORD
        assert problem(settings, f"{url}?") == "The sentinels watch no service main: correct its name in REDIS_URL"
    finally:
        server.kill()


class Sentinel(RedisServer):
    def __init__(self, directory: Path, configuration: Path, port: int) -> None:
        super().__init__(directory)
        self.configuration, self.port = configuration, port

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return [redis_binary(), str(self.configuration), "--sentinel"]
