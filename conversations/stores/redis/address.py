"""The addresses that REDIS_URL takes: of one server, of the sentinels that know which server takes writes, or of nodes
of a cluster, which know all the others."""

import re
from dataclasses import dataclass
from urllib.parse import unquote

SCHEMES = ("redis", "rediss", "unix")
SENTINEL_SCHEMES = ("redis+sentinel", "rediss+sentinel")
SENTINEL_PORT = 26379
CLUSTER_SCHEMES = ("redis+cluster", "rediss+cluster")
CLUSTER_PORT = 6379
_MOST_HOSTS = 15

_LOGIN_AND_HOSTS = r"(?:(?P<user>[^:@/]*):(?P<password>[^@/]*)@)?(?P<hosts>[^@/?#]+)"
_OPTIONS = r"(?:\?(?P<options>[^#]*))?"
_URL = re.compile(
    rf"(?P<scheme>rediss?)\+sentinel://{_LOGIN_AND_HOSTS}"
    r"/(?P<service>[A-Za-z0-9._-]{1,128})"
    rf"(?:/(?P<number>[0-9]{{1,5}}))?{_OPTIONS}"
)
_CLUSTER_URL = re.compile(
    rf"(?P<scheme>rediss?)\+cluster://{_LOGIN_AND_HOSTS}(?:/(?P<number>[0-9]{{1,5}})?)?{_OPTIONS}"
)
_OPTION = re.compile(r"keyword argument '(\w{1,64})'")
_HOST = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.%]+)\]|(?P<name>[A-Za-z0-9._-]+))(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class Sentinels:
    """The sentinels of one service, and how the server that they name is used."""

    hosts: tuple[tuple[str, int], ...]
    service: str
    username: str
    password: str
    """Of the servers. The sentinels have one of their own: see REDIS_SENTINEL_PASSWORD."""
    number: int
    """The database."""
    tls: bool
    """Whether the servers and the sentinels are reached by TLS."""
    options: str
    """What the driver takes after the `?` of a URL."""


@dataclass(frozen=True, slots=True)
class ClusterNodes:
    """Nodes of one cluster, and how all of its nodes are used."""

    hosts: tuple[tuple[str, int], ...]
    """Of some: they know the others."""
    username: str
    password: str
    tls: bool
    options: str
    """What the driver takes after the `?` of a URL."""


def is_of_sentinels(url: str) -> bool:
    """Return whether the URL's scheme is that of sentinels."""
    return url.partition("://")[0] in SENTINEL_SCHEMES


def check_options(url: str) -> None:
    """Raise ValueError where the driver does not take what follows the `?` of the URL; its text does not repeat that,
    but for the name of an option."""
    options = url.partition("?")[2]
    if not options:
        return
    from redis.connection import Connection, SSLConnection, parse_url  # not at the top: it takes time, and few need it
    from redis.exceptions import RedisError

    tls = url.startswith("rediss")
    given = parse_url(f"{'rediss' if tls else 'redis'}://?{options}")  # type: ignore[no-untyped-call]
    given.pop("connection_class", None)
    try:
        (SSLConnection if tls else Connection)(**given)  # which connects to nothing
    except TypeError as error:
        name = _OPTION.search(str(error))
        hint = "" if tls else "; what begins with ssl_ needs rediss://"
        raise ValueError(f"there is no option {name[1] if name else 'like that'}{hint}") from None
    except RedisError as error:
        raise ValueError(str(error)) from None
    if given.get("ssl_keyfile") and not given.get("ssl_certfile"):
        raise ValueError("ssl_keyfile needs ssl_certfile beside it")


def sentinels_in(url: str) -> Sentinels:
    """Return what `redis+sentinel://user:password@host:port,host:port/service/number` says; user and password, ports
    and number may be left out. Raise ValueError, whose text does not repeat the URL: it may hold a password."""
    found = _URL.fullmatch(url)
    if not found:
        raise ValueError("it must look like redis+sentinel://user:password@host:26379,host:26379/service/0")
    hosts = _hosts(found["hosts"], "sentinel", SENTINEL_PORT)
    return Sentinels(
        hosts,
        found["service"],
        *_login(found),
        int(found["number"] or 0),
        found["scheme"] == "rediss",
        found["options"] or "",
    )


def is_of_cluster(url: str) -> bool:
    """Return whether the URL's scheme is that of a cluster."""
    return url.partition("://")[0] in CLUSTER_SCHEMES


def cluster_in(url: str) -> ClusterNodes:
    """Return what `redis+cluster://user:password@host:port,host:port` says; user and password and ports may be left
    out. Raise ValueError, whose text does not repeat the URL: it may hold a password."""
    found = _CLUSTER_URL.fullmatch(url)
    if not found:
        raise ValueError("it must look like redis+cluster://user:password@host:6379,host:6379")
    hosts = _hosts(found["hosts"], "cluster node", CLUSTER_PORT)
    options = found["options"] or ""
    if int(found["number"] or 0) or any(one.partition("=")[0] == "db" for one in options.split("&")):
        raise ValueError("a cluster has no numbered databases: leave out the number")
    return ClusterNodes(hosts, *_login(found), found["scheme"] == "rediss", options)


def _login(found: re.Match[str]) -> tuple[str, str]:
    return unquote(found["user"] or ""), unquote(found["password"] or "")


def _hosts(text: str, name: str, port: int) -> tuple[tuple[str, int], ...]:
    hosts = tuple(_host(one, name, port) for one in text.split(","))
    if len(hosts) > _MOST_HOSTS:
        raise ValueError(f"it names {len(hosts)} {name}s, and {_MOST_HOSTS} are the most")
    return hosts


def _host(text: str, name: str, usual: int) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    port = int(found["port"] or usual) if found else 0
    if not found or not 0 < port < 65536:
        raise ValueError(f"each {name} must look like host:port, or [address]:port where it is an IPv6 address")
    return found["six"] or found["name"], port
