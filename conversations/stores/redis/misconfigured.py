"""Why Redis cannot be used where that is a fault of configuration, in one line: TLS, users and their rights.

Nothing here is asked by a turn: `serve` looks when it starts, and `status` when it is called.
"""

import re
import socket
import ssl
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from django.conf import settings
from redis.connection import Connection, SSLConnection
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError
from redis.sentinel import MasterNotFoundError, SentinelConnectionPool

from conversations.errors import StoreUnavailable
from conversations.stores.redis.address import is_of_cluster
from conversations.stores.redis.client import histories
from conversations.stores.redis.cluster import Cluster, pool_of_first, servers
from conversations.stores.redis.faults import as_unavailable, cause_of
from conversations.stores.redis.kept import Command
from conversations.stores.redis.keys import tombstone_key, used_keys_key
from conversations.stores.redis.scripts import source
from conversations.stores.tls import Names, causes, has_tls, problem

_NAMES = Names("ssl_ca_certs in REDIS_URL", "ssl_certfile and ssl_keyfile in REDIS_URL")
_FILES = {"ssl_ca_certs": "ca_certs", "ssl_certfile": "certfile", "ssl_keyfile": "keyfile"}
_COMMAND = re.compile(r"'([^']+)' command")
_OF_A_CLUSTER: tuple[Command, ...] = (("ASKING",), *(("CLUSTER", what) for what in ("INFO", "NODES", "SLOTS")))
_SECONDS = 1.0  # that each look at a server may take


def unusable_files() -> str:
    """Return what is wrong with the files that REDIS_URL names, "" for nothing. No server is asked."""
    pool = _pool()
    if not issubclass(pool.connection_class, SSLConnection):
        return ""
    return _unusable(pool.connection_class(**pool.connection_kwargs))


def why(alias: str, error: StoreUnavailable) -> str:
    """Return what is to be set right where Redis is not merely down, "" where that is not known. It may ask the
    server again, for a second or two."""
    if found := unusable_files():
        return found
    if any(isinstance(one, MasterNotFoundError) for one in causes(error)):
        return next(filter(None, map(_why_no_sentinel, _pool().sentinel_manager.sentinels)), "")
    login = "the user and the password in REDIS_URL"
    found = _why(cause_of(error.__cause__ or error), login)
    return found or (_why_no_node(login) if is_of_cluster(_url()) else _at_the_socket(_connection()))


def missing_rights(alias: str) -> str:
    """Return which rights the service's user lacks, "" for none. What is tried changes nothing: the keys are not there,
    and Redis refuses first. Raise StoreUnavailable."""
    with as_unavailable(alias):
        client = histories().client.redis
        is_cluster = isinstance(client, Cluster)
        found = _answers(client, [*_harmless(), *([("HKEYS", _key())] if is_cluster else [])])
        for server in servers(client):
            found += _answers(server, [*_of_no_key(), *(_OF_A_CLUSTER if is_cluster else ())])
    refused = dict.fromkeys(_right(one, command) for one, command in found if isinstance(one, NoPermissionError))
    if not refused:
        return ""
    return f"Redis refuses its user {', '.join(refused)} (NOPERM): give the user of REDIS_URL these rights"


def _answers(client: Any, commands: Iterable[Command]) -> list[tuple[Any, Command]]:
    pipeline, sent = client.pipeline(transaction=False), list(commands)
    for command in sent:
        pipeline.execute_command(*command)
    return list(zip(pipeline.execute(raise_on_error=False), sent, strict=True))


def _harmless() -> Iterator[Command]:
    """Yield commands that the service needs, in a form that changes nothing; most are answered with an error."""
    key = _key()
    for each in (key, tombstone_key(key), used_keys_key(key), "onesource:rights"):
        yield "EXISTS", each
    for name in ("GET", "STRLEN", "TTL", "PTTL", "HGETALL", "HLEN", "DEL", "UNLINK", "PERSIST"):
        yield name, key
    yield "SET", key, "", "XX"
    yield "GETRANGE", key, 0, 0
    yield "EXPIRE", key, 1
    yield "HGET", key, "x"
    yield "HDEL", key, "x"
    yield "HSCAN", key, 0
    yield "ZADD", key, "XX", 0, "x"
    yield "ZREM", key, "x"
    yield "ZRANGE", key, 0, 0
    yield "ZSCORE", key, "x"
    yield "EVALSHA", "0" * 40, 1, key


def _key() -> str:
    return f"{settings.CACHES['conversations']['KEY_PREFIX']}:{{rights}}"  # no session has braces in its name


def _of_no_key() -> Iterator[Command]:
    """Yield the like that every master of a cluster is asked."""
    yield "SCAN", 0, "COUNT", 1
    yield ("TIME",)
    yield "SCRIPT", "LOAD", source("lease")


def _right(error: NoPermissionError, command: Command) -> str:
    found = _COMMAND.search(str(error))
    return found[1].upper().replace("|", " ") if found else f"keys like {str(command[1]).partition(':')[0]}:*"


def _why_no_sentinel(sentinel: Any) -> str:
    """Return why one sentinel names no primary."""
    try:
        sentinel.ping()
    except RedisError as error:
        kwargs = sentinel.connection_pool.connection_kwargs
        found = _why(error, "REDIS_SENTINEL_PASSWORD")
        return f"The sentinel at {kwargs['host']}:{kwargs['port']}: {found}" if found else ""
    return f"The sentinels watch no service {_pool().service_name}: correct its name in REDIS_URL"


def _why_no_node(login: str) -> str:
    """Return why the first node of a cluster does not say which slots the nodes have."""
    connection = _connection()
    connection.socket_timeout = connection.socket_connect_timeout = _SECONDS
    try:
        connection.connect()
        connection.send_command("CLUSTER", "SLOTS")
        connection.read_response()
    except (RedisError, OSError) as error:
        return _why(error, login) or _at_the_socket(_connection())
    finally:
        connection.disconnect()
    return ""


def _why(error: BaseException, login: str) -> str:
    """Return what an error shows, `login` being what has user and password."""
    if isinstance(error, NoPermissionError):
        found = _COMMAND.search(str(error))
        what = found[1].upper().replace("|", " ") if found else "keys that it needs"
        return f"Redis refuses its user {what} (NOPERM): give the user of REDIS_URL this right"
    if isinstance(error, AuthenticationError):
        if "required" in str(error):
            return f"Redis wants a password, and has got none: set {login}"
        if "without any password" in str(error):
            return f"Redis has no password, and has got one: remove it from {login}"
        return f"Redis knows no such user, or refuses the password: correct {login}"
    for one in causes(error):
        if isinstance(one, ssl.SSLError) and (text := problem(str(one), _NAMES)):
            return f"Redis {text}"
    return ""


def _unusable(connection: Any) -> str:
    for option, name in _FILES.items():
        path = getattr(connection, name)
        try:
            if path:
                Path(path).open("rb").close()
        except OSError as error:
            return f"{option} in REDIS_URL is {path}, which cannot be read: {error.strerror}"
    try:
        context = ssl.create_default_context()
        if connection.ca_certs:
            context.load_verify_locations(connection.ca_certs)
    except ssl.SSLError:
        return f"ssl_ca_certs in REDIS_URL is {connection.ca_certs}, which has no certificate"
    try:
        if connection.certfile:  # without a password the library would ask the terminal for one
            context.load_cert_chain(connection.certfile, connection.keyfile, connection.certificate_password or "")
    except ssl.SSLError as error:
        if "KEY_VALUES_MISMATCH" in (error.reason or ""):
            return "ssl_keyfile in REDIS_URL is not the key of the certificate in ssl_certfile"
        return "ssl_certfile and ssl_keyfile in REDIS_URL are no certificate with its key, or ssl_password is wrong"
    return ""


def _at_the_socket(connection: Any) -> str:
    """Return what a server shows that only closes the connection, or does not answer: whether it is reached with TLS
    where it has none, or the reverse, or refuses the certificate of this service."""
    if not isinstance(connection, Connection) or not connection.host:
        return ""
    here = f"Redis at {connection.host}:{connection.port}"
    tls = has_tls(connection.host, connection.port)
    if not isinstance(connection, SSLConnection):
        return f"{here} is reached by TLS alone: REDIS_URL has to begin with rediss" if tls else ""
    if tls is False and _answers_plainly(connection):
        return f"{here} has no TLS on this port: use its TLS port, or a REDIS_URL without it"
    with suppress(OSError):
        return _refuses_our_certificate(connection, here)
    return ""


def _answers_plainly(connection: Connection) -> bool:
    try:
        with _plain(connection) as plain:
            plain.sendall(b"PING\r\n")
            return plain.recv(1)[:1] in (b"+", b"-")
    except OSError:
        return False


def _refuses_our_certificate(connection: Any, here: str) -> str:
    context = ssl.create_default_context(cafile=connection.ca_certs)
    context.check_hostname, context.verify_mode = connection.check_hostname, connection.cert_reqs
    refused = f"{here} closes after the handshake: it may want a certificate of this service: set {_NAMES.own}"
    if connection.certfile:
        context.load_cert_chain(connection.certfile, connection.keyfile, connection.certificate_password or "")
        refused = f"{here} closes after the handshake: it may not accept the certificate in ssl_certfile of REDIS_URL"
    with _plain(connection) as plain, context.wrap_socket(plain, server_hostname=connection.host) as secured:
        try:
            return "" if secured.recv(1) else refused
        except TimeoutError:  # it waits for a command
            return ""
        except ssl.SSLError as error:
            found = problem(str(error), _NAMES)
            return f"Redis {found}" if found else refused


def _plain(connection: Connection) -> socket.socket:
    return socket.create_connection((connection.host, connection.port), timeout=_SECONDS)


def _url() -> str:
    return str(settings.CACHES["conversations"]["LOCATION"][0])


def _pool() -> Any:
    """Return the pool of connections, of a cluster one of the first node that the URL names: where a cluster cannot be
    used it has no other."""
    return pool_of_first(_url()) if is_of_cluster(_url()) else histories().client.redis.connection_pool


def _connection() -> Any:
    """Return a connection that is not made, to the server of the URL, or to the one that sentinels name."""
    pool = _pool()
    connection = pool.connection_class(**pool.connection_kwargs)
    if isinstance(pool, SentinelConnectionPool) and pool.master_address:
        connection.host, connection.port = pool.master_address
    return connection
