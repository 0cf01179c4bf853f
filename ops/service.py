"""A running onesource, asked over HTTP by commands: no proxy of the environment, and no redirect, since the token would
go with it."""

import ssl
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from ops.errors import NoServer


@dataclass(frozen=True, slots=True)
class Service:
    """Where it answers; each call has its own connection."""

    url: str
    token: str = field(default="", repr=False)
    seconds: float = 30.0

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """Return status and body of the answer, an error's too; raise NoServer when there is none."""
        import httpx  # not at the top: it takes a tenth of a second, and most commands make no request

        verify = _authorities(self._scheme())
        try:
            with httpx.Client(timeout=self.seconds, trust_env=False, verify=verify) as client:
                answer = client.request(method, f"{self.url}{path}", json=body, headers=self._headers())
                return answer.status_code, answer.content
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise NoServer(_reason(error)) from None

    def _scheme(self) -> str:
        """Return http or https; raise NoServer where that is not what the address is."""
        try:
            parts = urlsplit(self.url)
        except ValueError:
            raise NoServer("this is no address") from None
        if parts.scheme not in ("http", "https"):
            raise NoServer("the address must begin with http:// or https://")
        if "@" in parts.netloc:
            raise NoServer("the address must hold no password: everybody sees a command line")
        return parts.scheme

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


def without_secrets(url: str) -> str:
    """Return the address alone: user, password and options may be secrets."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "that address"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _authorities(scheme: str) -> ssl.SSLContext | bool:
    """Return the machine's own authorities, among which a company's may be; plain HTTP needs none loaded."""
    return False if scheme == "http" else ssl.create_default_context()


def _reason(error: BaseException) -> str:
    """Return what went wrong without the address, which may hold a password."""
    first: BaseException | None = error
    while first is not None:
        if isinstance(first, OSError) and first.strerror:
            return first.strerror
        first = first.__cause__ or first.__context__
    return type(error).__name__
