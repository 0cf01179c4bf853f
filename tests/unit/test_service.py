"""What commands trust of a server that they ask over HTTPS."""

import ssl

import pytest

from ops.service import Service, _authorities


@pytest.mark.parametrize("url", ["https://example.org", "HTTPS://example.org"])
def test_a_server_over_https_is_verified(url: str) -> None:
    context = _authorities(Service(url)._scheme())
    assert isinstance(context, ssl.SSLContext)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_a_token_is_not_in_its_repr() -> None:
    assert "secret" not in repr(Service("http://example.org", "secret"))
