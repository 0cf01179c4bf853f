"""The addresses of sentinels, and of clusters, that REDIS_URL takes."""

import pytest

from conversations.stores.redis.address import (
    ClusterNodes,
    Sentinels,
    cluster_in,
    is_of_cluster,
    is_of_sentinels,
    sentinels_in,
)


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


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis+cluster://h1", ClusterNodes((("h1", 6379),), "", "", tls=False, options="")),
        (
            "redis+cluster://user:p%40w:x@h1:7000,h2:7001,[fd00::1]:7002,[::1]/0?socket_keepalive=1",
            ClusterNodes(
                (("h1", 7000), ("h2", 7001), ("fd00::1", 7002), ("::1", 6379)), "user", "p@w:x",
                tls=False, options="socket_keepalive=1",
            ),
        ),
        (
            "rediss+cluster://:secret@10.0.0.1:7000/?ssl_ca_certs=/ca.pem",
            ClusterNodes((("10.0.0.1", 7000),), "", "secret", tls=True, options="ssl_ca_certs=/ca.pem"),
        ),
    ],
)  # fmt: skip
def test_what_an_address_of_a_cluster_says(url: str, expected: ClusterNodes) -> None:
    assert is_of_cluster(url)
    assert not is_of_sentinels(url)
    assert cluster_in(url) == expected


@pytest.mark.parametrize(
    "url",
    ["redis+cluster://secret@h1", "redis+cluster://u:secret@", "redis+cluster://u:secret@/0",
     "redis+cluster://u:secret@h1:x", "redis+cluster://u:secret@h1:0", "redis+cluster://u:secret@h1:65536",
     "redis+cluster://u:secret@h1,", "redis+cluster://u:secret@h1/1", "redis+cluster://u:secret@h1/x",
     "redis+cluster://u:secret@h1/0\n", "redis+cluster://u:secret@[::1", "redis+cluster://u:secret@h1?db=2",
     "redis+cluster://u:secret@" + ",".join(["h"] * 16)],
)  # fmt: skip
def test_what_is_no_address_of_a_cluster_is_refused_without_its_secret(url: str) -> None:
    with pytest.raises(ValueError, match="cluster") as refused:
        cluster_in(url)
    assert "secret" not in str(refused.value)
