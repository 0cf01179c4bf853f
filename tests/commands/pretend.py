"""A third store, for test_third_store.py: what would be conversations/stores/pretend/, and a process that uses it.

The process keeps the store in its memory, so everything that is tried of it happens here; the results are printed.
"""

import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import django
from django.conf import settings

from conversations import stores
from conversations.stores.bulk_reader import Memory
from conversations.stores.info import StoreInfo
from conversations.stores.memory import MemoryStore
from conversations.stores.memory_bulk import MemoryBulk
from conversations.stores.scratch import UNLIMITED, Scratch

PRETEND, SESSION = "pretend", "pretended"


class PretendStore(MemoryStore):
    """Of the same kind as MongoDB, so that it sets flags while it alone is wanted."""

    cheap_reads = False


class PretendBulk(MemoryBulk):
    """Reaches the store beneath what is measured."""

    def __init__(self, store: Any) -> None:
        super().__init__(store._store)

    def memory(self) -> Memory:
        return Memory(1000, 0)


@contextmanager
def open_scratch(url: str, number: int) -> Iterator[Scratch]:
    """Yield room in this process: such a store has no server."""
    room = MemoryBulk(PretendStore(PRETEND, UNLIMITED))
    yield Scratch(room, lambda: vars(room.store).update(vars(PretendStore(PRETEND, UNLIMITED))))


def read_info(alias: str) -> StoreInfo:
    """Report the address, as a version, to show that the settings have it."""
    return StoreInfo(version=settings.STORE_URLS[alias])


def register() -> None:
    """Do what a line in BACKENDS would, before anything else imports ALIASES."""
    parts = {"store": PretendStore, "bulk": PretendBulk, "info": read_info, "scratch": open_scratch}
    paths = {name: f"{__name__}.{one.__name__}" for name, one in parts.items()}
    ours = stores.Backend(label="Pretend", schemes=("pretend",), **paths)
    stores.BACKENDS = {PRETEND: ours} | stores.BACKENDS
    stores.ALIASES = (PRETEND, stores.MONGO)


def ask(question: str) -> dict[str, Any]:
    """Return the API's answer."""
    from django.test import Client

    body = {"question": question, "session_id": SESSION}
    headers = {"host": "localhost"}
    answer: dict[str, Any] = Client().post("/api/chat/ask", body, "application/json", headers=headers).json()
    return answer


def metrics() -> dict[str, float]:
    """Return the metrics of our store, by name; of those with other labels their sum."""
    from django.test import Client
    from prometheus_client.parser import text_string_to_metric_families

    page = Client().get("/metrics", headers={"host": "localhost"}).content.decode()
    found: dict[str, float] = {}
    for sample in (sample for family in text_string_to_metric_families(page) for sample in family.samples):
        if sample.labels.get("store") == PRETEND or sample.name.startswith(f"{PRETEND}_"):
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


def schema() -> list[str]:
    """Return the stores that the API's schema allows in an answer."""
    from django.test import Client

    page = Client().get("/api/schema/?format=json", headers={"host": "localhost"}).json()
    found: list[str] = page["components"]["schemas"]["StoreEnum"]["enum"]
    return found


def command(*words: str) -> dict[str, Any]:
    """Return the result of a command, with its exit code."""
    from django.core.management import CommandError, call_command

    out, code = io.StringIO(), 0
    try:
        call_command(*words, "--json", stdout=out)
    except CommandError as error:
        code = error.returncode
    return {"code": code, **json.loads(out.getvalue() or "{}")}


def use() -> dict[str, Any]:
    """Ask with both stores up, with ours out, and with ours back; then call each command."""
    from conversations.history import repair
    from conversations.runtime import gauges, pings
    from ops.failover import move

    gauges.start()
    pings.look()
    move.FOLLOW_SECONDS = 0.0  # there is no other process
    ours: Any = stores.store(PRETEND)._store  # type: ignore[attr-defined]
    results: dict[str, Any] = {"up": ask("one")}
    ours.down = True
    results["out"] = ask("two")
    ours.down = False
    repair.conversation(SESSION)
    results["messages"] = {alias: len(stores.store(alias).load(SESSION) or ()) for alias in stores.ALIASES}
    ours.append("alone", None, ours.load(SESSION).turns())
    commands = {
        "reconcile": ("reconcile",),
        "status": ("status",),
        "failover": ("failover", "--to", "mongo"),
        "trim": ("trim", "--max-turns", "1", "--apply"),
        "to_memory": ("trim", "--to-memory", "1gb"),
    }
    results |= {"schema": schema(), "metrics": metrics()}
    results |= {name: command(*words) for name, words in commands.items()}
    PretendBulk.supports_memory = True
    results["full"] = command("trim", "--to-memory", "1gb")
    results["backup"] = command("backup", "--to", str(settings.VAR_DIR))
    return results | {"verify": command("backup", "verify", results["backup"]["file"])}


def main() -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "onesource.settings"
    django.setup()
    print(json.dumps(use()))  # noqa: T201


if __name__ in ("__main__", "__mp_main__"):  # the latter in the process in which `verify` tries half of a backup out
    from tests.commands import pretend  # the module of that name, from which the registry imports

    pretend.register()
if __name__ == "__main__":
    pretend.main()
