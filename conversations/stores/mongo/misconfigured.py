"""Why MongoDB cannot be used where that is a fault of configuration, in one line: TLS, users and their rights."""

import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from django.conf import settings
from django.db import connections
from pymongo.errors import ConfigurationError, OperationFailure

from conversations.errors import StoreUnavailable
from conversations.models import ALIAS
from conversations.stores.tls import Names, causes, has_tls, problem

_NAMES = Names("tlsCAFile in MONGO_URL", "tlsCertificateKeyFile in MONGO_URL")
_FILES = ("tlsCAFile", "tlsCertificateKeyFile")
_COMMAND = re.compile(r"execute command \{ ?(\w+)")
_NOT_LOGGED_IN, _NOT_ALLOWED = (18, 11, 8000), (13,)  # error codes of the server


def unusable_files() -> str:
    """Return what is wrong with the files that MONGO_URL names, "" for nothing. No server is asked."""
    for option, path in _options():
        if option not in _FILES:
            continue
        try:
            Path(path).open("rb").close()
            context = ssl.create_default_context()
            context.load_verify_locations(path) if option == _FILES[0] else context.load_cert_chain(path, password="")
        except ssl.SSLError:
            what = "certificate" if option == _FILES[0] else "certificate with its key, or its key needs a password"
            return f"{option} in MONGO_URL is {path}, which has no {what}"
        except OSError as error:
            return f"{option} in MONGO_URL is {path}, which cannot be read: {error.strerror}"
    return ""


def why(alias: str, error: StoreUnavailable) -> str:
    """Return what is to be set right where MongoDB is not merely down, "" where that is not known."""
    if found := unusable_files():
        return found
    for one in (*causes(error), *_of_servers()):
        if found := _why(one):
            return f"MongoDB {found}"
    return _at_the_socket()


def missing_rights(alias: str) -> str:
    """Return "": what a user may not do is seen when it is refused."""
    return ""


def _why(error: BaseException) -> str:
    if isinstance(error, OperationFailure) and error.code in _NOT_LOGGED_IN:
        return "knows no such user, or refuses the password: correct them, or authSource, in MONGO_URL"
    if isinstance(error, OperationFailure) and error.code in _NOT_ALLOWED:
        found = _COMMAND.search(str(error))
        if not found and "uthentication" in str(error):
            return "wants a user, and has got none: set user and password in MONGO_URL"
        what = f"the command {found[1]}" if found else "a command"
        return f"refuses its user {what}: give the user of MONGO_URL the role readWrite on its database"
    if isinstance(error, ConfigurationError):
        return "cannot be reached with this MONGO_URL: its options do not fit each other"
    return problem(str(error), _NAMES)


def _at_the_socket() -> str:
    """Return whether a server is reached with TLS where it has none, or the reverse."""
    wanted = ("tls", "true") in _options() or ("ssl", "true") in _options()
    for server in _servers():
        host, port = server.address
        tls = has_tls(host, port)
        if tls is not None and tls != wanted:
            here = f"MongoDB at {host}:{port}"
            return (
                f"{here} is reached by TLS alone: set tls=true in MONGO_URL"
                if tls
                else (f"{here} has no TLS on this port: use its TLS port, or leave tls out of MONGO_URL")
            )
    return ""


def _of_servers() -> Iterator[BaseException]:
    """Yield what the driver met last at each server."""
    yield from filter(None, (server.error for server in _servers()))


def _servers() -> list[Any]:
    wrapper: Any = connections[ALIAS]
    client = wrapper.connection or wrapper._connection_pools.get(ALIAS)
    return [] if client is None else list(client.topology_description.server_descriptions().values())


def _options() -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(settings.MONGO_URL).query)
