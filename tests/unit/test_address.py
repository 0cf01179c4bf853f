"""The addresses of sentinels that REDIS_URL takes."""

import pytest

from conversations.stores.redis.address import Sentinels, is_of_sentinels, sentinels_in


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis+sentinel://s1/mymaster", Sentinels((("s1", 26379),), "mymaster", "", "", 0, tls=False, options="")),
        (
            "redis+sentinel://user:p%40w:x@s1:1,s2:2,[fd00::1]:3,[::1]/a.b-c_d/15?socket_keepalive=1",
            Sentinels(
                (("s1", 1), ("s2", 2), ("fd00::1", 3), ("::1", 26379)), "a.b-c_d", "user", "p@w:x", 15,
                tls=False, options="socket_keepalive=1",
            ),
        ),
        (
            "rediss+sentinel://:secret@10.0.0.1:26379/m/0?ssl_ca_certs=/ca.pem",
            Sentinels((("10.0.0.1", 26379),), "m", "", "secret", 0, tls=True, options="ssl_ca_certs=/ca.pem"),
        ),
    ],
)  # fmt: skip
def test_what_an_address_says(url: str, expected: Sentinels) -> None:
    assert is_of_sentinels(url)
    assert sentinels_in(url) == expected


@pytest.mark.parametrize(
    "url",
    ["redis+sentinel://secret@s1/m", "redis+sentinel://u:secret@/m", "redis+sentinel://u:secret@s1",
     "redis+sentinel://u:secret@s1:x/m", "redis+sentinel://u:secret@s1:0/m", "redis+sentinel://u:secret@s1:65536/m",
     "redis+sentinel://u:secret@s1,/m", "redis+sentinel://u:secret@s1/m/x", "redis+sentinel://u:secret@s1/m/0\n",
     "redis+sentinel://u:secret@[::1/m", "redis+sentinel://u:secret@s1/m/0/1", "redis+sentinel://u:se/cret@s1/m/0",
     "redis+sentinel://u:secret@" + ",".join(["s"] * 16) + "/m"],
)  # fmt: skip
def test_what_is_no_address_is_refused_without_its_secret(url: str) -> None:
    with pytest.raises(ValueError, match="sentinel") as refused:
        sentinels_in(url)
    assert "secret" not in str(refused.value)
