"""Which stores a visitor may stop, freeze and start: those that `manage.py serve` started, from the same machine."""

from ipaddress import IPv6Address, ip_address

from django.conf import settings
from django.http import HttpRequest
from django.http.request import split_domain_port

_HOSTS = {"localhost", "127.0.0.1", "[::1]"}
_FORWARDED = ("HTTP_FORWARDED", "HTTP_VIA", "HTTP_X_FORWARDED", "HTTP_X_REAL_IP")  # beginnings of headers


def changeable(request: HttpRequest) -> tuple[str, ...]:
    """Return the aliases of the stores that this client may change: none for a client from elsewhere, and none where
    chat needs a token."""
    if settings.CHAT_AUTH != "open" or not _is_local(request):
        return ()
    wanted = {"redis": settings.EMBEDDED_REDIS, "mongo": settings.EMBEDDED_MONGO}
    return tuple(name for name, is_embedded in wanted.items() if is_embedded)


def is_from_page(request: HttpRequest) -> bool:
    """Return whether the page itself sent the request: with its Origin, and Sec-Fetch-Site where the browser has that.

    Django asks for the CSRF token, but not for an Origin, and it takes those of CSRF_TRUSTED_ORIGINS too. Behind a
    proxy that sends no header of its own a browser's Origin is still the public name.
    """
    origin = f"{request.scheme}://{request.get_host()}"
    same_site = request.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"
    return request.headers.get("Origin") == origin and same_site


def _is_local(request: HttpRequest) -> bool:
    """Return whether a browser on this machine asks, by a name of this machine, with no proxy between.

    Behind a proxy every client has the proxy's address. Another name may be a site's own that leads here: its scripts
    would be of the same origin.
    """
    host, _ = split_domain_port(request.get_host())
    proxied = settings.HTTPS or any(name.startswith(_FORWARDED) for name in request.META)
    return host in _HOSTS and not proxied and _is_loopback(request.META.get("REMOTE_ADDR", ""))


def _is_loopback(address: str) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return (mapped or found).is_loopback
