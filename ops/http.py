"""One small HTTP call, for commands that ask a running server: no proxy, no redirect."""

import http.client
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

import orjson


class _Stay(urllib.request.HTTPRedirectHandler):
    """Goes nowhere: the token would go with it."""

    def redirect_request(self, *_: Any) -> None:
        return None


_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _Stay)


class NoServer(Exception):
    """Nothing that speaks HTTP answers there."""


def call(url: str, method: str = "GET", body: Any = None, token: str = "", seconds: float = 30.0) -> tuple[int, bytes]:
    """Return status and body of the answer, an error's too; raise NoServer when there is none."""
    if urlsplit(url).scheme not in ("http", "https"):
        raise NoServer("the address must begin with http:// or https://")
    if "@" in urlsplit(url).netloc:
        raise NoServer("the address must hold no password: everybody sees a command line")
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    data = None if body is None else orjson.dumps(body)
    try:
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310  # checked above
        with _opener.open(request, timeout=seconds) as response:
            return int(response.status), bytes(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
    except urllib.error.URLError as error:
        raise NoServer(_reason(error.reason)) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoServer(_reason(error)) from None


def _reason(error: Any) -> str:
    """Return what went wrong without the address, which may hold a password."""
    return str(getattr(error, "strerror", None) or type(error).__name__)
