"""What Django gets of a request: its WSGI environment (PEP 3333)."""

import io
import sys
from typing import Any
from urllib.parse import unquote_to_bytes

from asgiref.typing import HTTPScope

from telemetry import request_id

_UNDERSCORE = ord("_")


def environ(scope: HTTPScope, body: bytes) -> dict[str, Any]:
    """Return the environment of a request whose body has been read."""
    server, client = scope["server"] or ("localhost", 80), scope["client"] or ("", 0)
    return {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(scope["raw_path"]).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1] or 0),
        "REMOTE_ADDR": client[0],
        "REMOTE_PORT": str(client[1]),
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        **_headers(scope),
        "HTTP_X_REQUEST_ID": request_id.current(),
    }


def _headers(scope: HTTPScope) -> dict[str, str]:
    """Return the variables of the headers.

    A header whose name has an underscore is left out, as nginx and gunicorn do: `X_Forwarded_For` would have the
    same name in WSGI as the header that a proxy sets.
    """
    result: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        if _UNDERSCORE in raw_name or raw_name in (b"content-length", b"transfer-encoding"):
            continue
        name = raw_name.decode("latin-1").upper().replace("-", "_")
        name = name if name == "CONTENT_TYPE" else f"HTTP_{name}"
        value = raw_value.decode("latin-1")
        separator = "; " if name == "HTTP_COOKIE" else ","
        result[name] = f"{result[name]}{separator}{value}" if name in result else value
    return result
