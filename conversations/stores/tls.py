"""What is wrong between this service and a server that is reached by TLS, in words; the same for every store."""

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

_SECONDS = 1.0  # that a look at a server may take
_CERTIFICATES = (
    ("certificate has expired", "has a certificate that has expired: renew it there, or set the clock of this machine"),
    ("is not yet valid", "has a certificate that is not valid yet: compare the clocks of both machines"),
    ("mismatch, certificate", "has a certificate of another host: use the name that it certifies, or certify this one"),
    (
        "certificate verify failed",
        "has a certificate of an authority that is not known here: set {authority} to the authority's file",
    ),
)
_ALERTS = {
    "CERTIFICATE_REQUIRED": "wants a certificate of this service, and got none: set {own}",
    "HANDSHAKE_FAILURE": "ends the handshake: it may want a certificate of this service ({own}) or another TLS",
    "UNKNOWN_CA": "does not know the authority of this service's certificate ({own})",
    "CERTIFICATE_EXPIRED": "refuses the certificate of this service, which has expired: renew {own}",
    "BAD_CERTIFICATE": "refuses the certificate of this service: look at {own}",
}.items()


@dataclass(frozen=True, slots=True)
class Names:
    """How an address names what TLS needs."""

    authority: str
    own: str


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and what it came from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def problem(text: str, names: Names) -> str:
    """Return what is wrong, to follow the server's name, and which setting to look at; "" where OpenSSL's text does not
    show it. MongoDB's driver keeps the text alone."""
    for words, line in (*_CERTIFICATES, *_ALERTS):
        if words in text:
            return line.format(authority=names.authority, own=names.own)
    return ""


def has_tls(host: str, port: int) -> bool | None:
    """Return whether a server begins with TLS on that port, None where nobody listens there."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is sent: it is only looked for
    try:
        plain = socket.create_connection((host, port), timeout=_SECONDS)
    except OSError:
        return None
    try:
        with plain, context.wrap_socket(plain):
            return True
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")  # it wants a certificate
    except OSError:
        return False
