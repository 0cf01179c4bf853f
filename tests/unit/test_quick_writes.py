"""Which writes to MongoDB need not wait, because one that follows waits for them too."""

import pytest
from pymongo import MongoClient, WriteConcern

from conversations.stores.mongo.put import quick


class Described:
    """The description of a server, as the driver has it once it has asked."""

    def __init__(self, name: str) -> None:
        self.server_type_name = name


@pytest.mark.parametrize(
    ("servers", "waits"),
    [
        (["Standalone"], False),
        (["RSPrimary"], False),  # a replica set of one
        (["RSPrimary", "RSSecondary", "RSSecondary"], True),  # the last write may go to another primary
        (["RSPrimary", "Unknown"], True),  # a member that is out may come back as the primary
        (["Mongos"], True),  # the last write goes to one shard alone
        (["Mongos", "Mongos"], True),
        (["Unknown"], True),
    ],
)
def test_only_a_server_alone_is_not_waited_for(
    servers: list[str], waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    client: MongoClient[dict[str, object]] = MongoClient(connect=False, w="majority", journal=True)
    described = type("Topology", (), {"server_descriptions": lambda _: dict(enumerate(map(Described, servers)))})()
    monkeypatch.setattr(type(client), "topology_description", described)
    majority = WriteConcern(w="majority", j=True)
    expected = majority if waits else WriteConcern(w=1, j=False)
    assert quick(client["onesource"]["any"]).write_concern == expected
