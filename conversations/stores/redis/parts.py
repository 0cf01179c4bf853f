"""The dataset of a cluster. Each master can lose data on its own, so the epoch is kept in many keys, spread over the
slots: that of the whole is the least of them. What began again shows in the masters' run ids, of which the instance is
made. Where a part is gone, or older than the others, the dataset is another one. A loss in slots that have none of
these keys does not show while the masters are the same."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from redis.exceptions import NoPermissionError

from conversations.datasets import Dataset
from conversations.stores.redis.cluster import Cluster
from conversations.stores.redis.keys import DATASET, HEARTBEATS, epoch_keys
from conversations.stores.redis.newest import checked

_LOST = "lost"
"""The instance of a dataset of which a part is gone: no server has it, so the dataset is taken for another one."""


def reported(cluster: Cluster, keys: Sequence[str]) -> tuple[Mapping[bytes, bytes], str, Any, Any, list[Any]]:
    """Return the fields of the dataset, the instance, the time, the heartbeats, and the values of these keys; raise the
    driver's errors."""
    cluster.routes.refresh()
    parts = epoch_keys()
    commands = [("HGETALL", DATASET), ("HGETALL", HEARTBEATS), *(("GET", key) for key in (*parts, *keys))]
    fields, heartbeats, *values = checked(cluster.routes.call_each(commands))
    [[time], *_] = cluster.routes.of_masters(("TIME",))
    dataset = _least(_pairs(fields), values[: len(parts)])
    return dataset, _instance(cluster), tuple(map(int, time)), _pairs(heartbeats), values[len(parts) :]


def raising(dataset: Dataset, seen: int | None) -> list[tuple[str, list[Any]]]:
    """Return, for each part, its key and the arguments of the script that raises its epoch to that of the dataset. A
    part whose epoch is below `seen` has lost data, and is left as it is; with None every part is raised."""
    return [(key, [dataset.epoch, "" if seen is None else seen]) for key in epoch_keys()]


def _least(fields: dict[bytes, bytes], parts: list[Any]) -> dict[bytes, bytes]:
    if not fields:
        return fields
    lost = not all(part and part.isdigit() for part in parts)
    least = 0 if lost else min(int(fields[b"epoch"]), *map(int, parts))
    return fields | {b"epoch": str(least).encode()} | ({b"instance": _LOST.encode()} if lost else {})


def _instance(cluster: Cluster) -> str:
    """Return what changes when a master starts again, or another server takes the place of one; "" where the user has
    not the right to see that."""
    try:
        infos = cluster.routes.of_masters(("INFO", "server"))
    except NoPermissionError:
        return ""
    ids = sorted(line for [info] in infos for line in info.splitlines() if line.startswith(b"run_id:"))
    return blake2b(b"\n".join(ids), digest_size=20).hexdigest()


def _pairs(answer: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(answer[::2], answer[1::2], strict=True))
