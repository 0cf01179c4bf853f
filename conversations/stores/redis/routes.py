"""Where the commands of a cluster go: to the masters that have their keys, to all of these at once.

Turns, and pipelines, are sent here, over connections of the library's: its own pipeline asks a node for the keys of
each script, a round trip more for each, and its calls wait for a quarter of a second where a slot has no master.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from random import random
from typing import TYPE_CHECKING, Any

from redis.client import Pipeline
from redis.cluster import PRIMARY, ClusterNode
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ConnectionError,
    MovedError,
    NoScriptError,
    RedisClusterException,
    RedisError,
    TimeoutError,
    TryAgainError,
)

from conversations import deadline
from conversations.stores.redis import connection
from conversations.stores.redis.kept import Command, KeptConnections

if TYPE_CHECKING:
    from conversations.stores.redis.cluster import Cluster

EVERY = 1.0  # seconds between two looks at the map of slots after faults
_PAUSE = 0.01  # seconds until a slot that is being moved is tried again
_FAULTS = (RedisError, RedisClusterException, OSError)


class Routes:
    """Sends commands to the masters that have their keys, over connections that are kept: KeptConnections of each."""

    def __init__(self, cluster: "Cluster") -> None:
        self._cluster = cluster
        self._kept: dict[str, tuple[Any, KeptConnections]] = {}
        self._refreshing = threading.Lock()
        self._wanted = False
        """Whether the map is to be refreshed."""
        self._silent: dict[str, float] = {}
        """When nodes did not answer."""
        self._asked: dict[tuple[str, int], ClusterNode] = {}
        """To which the keys of a slot were being moved."""
        self._masters: frozenset[bytes] = frozenset()
        """The ids of the masters of the map."""
        self._refreshed = time.monotonic()
        self._seconds = float(cluster.nodes_manager.connection_kwargs.get("socket_timeout") or 1.0)

    def call(self, *command: Any) -> Any:
        """Return the answer, of SCRIPT LOAD the first master's, for which all are asked, and those without slots that
        are being given some; raise the driver's errors."""
        if command[0] == "SCRIPT":
            self._send([(node, (command,)) for node in self._asked.values()])  # one that is gone is no fault
            return self.of_masters(command)[0][0]
        self._refresh_after_fault()
        node = self._node(command)
        try:
            return self._kept_of(node).call(*command)
        except (AskError, TryAgainError) as error:
            [answer] = self._redirect([command], [error], [0])
        except _FAULTS as error:
            self.note_fault(node, error)
            raise
        if isinstance(answer, Exception):
            raise answer
        return answer

    def call_each(self, commands: Sequence[Command]) -> list[Any]:
        """Return the answers of all commands, in one round trip to all masters at once, in the place of an answer the
        error of the server, or of its connection: what other masters have answered counts all the same."""
        self._refresh_after_fault()
        nodes = [self._node(command) for command in commands]
        answers = self._send([(node, (command,)) for node, command in zip(nodes, commands, strict=True)])
        redirected = [place for place, answer in enumerate(answers) if isinstance(answer, (AskError, TryAgainError))]
        return self._redirect(commands, answers, redirected) if redirected else answers

    def of_masters(self, *commands: Command) -> list[list[Any]]:
        """Return each master's answers of these commands, which have no keys; raise the first error."""
        self._refresh_after_fault()
        masters = self._cluster.masters()
        answers = self._send([(node, (command,)) for node in masters for command in commands])
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return [answers[place : place + len(commands)] for place in range(0, len(answers), len(commands))]

    def refresh(self) -> None:
        """Ask a node for the map of slots, and others for about as long as one answer may take; the map stays as it is
        where none answers, or knows a slot. Return at once, at the latest after that time, where another thread asks.
        """
        if self._refreshing.acquire(timeout=min(self._seconds, max(deadline.left(), 0.0))):
            self._refresh_and_release()

    def _refresh_and_release(self) -> None:
        try:
            self._wanted = False
            if not any(map(self._take_map, self._in_turn())):
                self._wanted = True
            self._refreshed = time.monotonic()
        finally:
            self._refreshing.release()

    def _in_turn(self) -> Iterator[ClusterNode]:
        """Yield the nodes to ask for the map, for as long as one answer may take: at last those that have not answered,
        and before these the ones that the address names, since all may have other addresses by now."""
        until = time.monotonic() + min(self._seconds, deadline.left())
        known = dict(self._cluster.nodes_manager.nodes_cache)
        nodes = {node.name: node for node in map(node_at, self._cluster.named)} | known
        self._silent = {name: at for name, at in list(self._silent.items()) if name in nodes}
        for name in self._kept.keys() - nodes.keys():
            self._kept.pop(name)[1].close()
        order = [(self._silent.get(name, 0.0), name not in known, random(), name) for name in nodes]  # noqa: S311
        for *_, name in sorted(order):
            yield nodes[name]
            if time.monotonic() >= until:
                return

    def _take_map(self, node: ClusterNode) -> bool:
        """Have the library take the map of this node alone; return whether it has one."""
        manager = self._cluster.nodes_manager
        try:
            slots = self._kept_of(node).call("CLUSTER", "SLOTS")
            if not slots:  # the library would forget all nodes
                return False
            masters, self._masters = self._masters, frozenset(master[2] for _, _, master, *_ in slots)
            if masters != self._masters:
                connection.made += 1  # one that is new may be connected to: it is to be compared all the same
            manager.startup_nodes = {node.name: node}
            manager.initialize(disconnect_startup_nodes_pools=False)
        except (*_FAULTS, LookupError):
            self._silent[node.name] = time.monotonic()
            return False
        self._silent.pop(node.name, None)
        return True

    def refresh_later(self) -> None:
        """Have the map of slots refreshed before the next command."""
        self._wanted = True

    def note_fault(self, node: ClusterNode, error: BaseException) -> None:
        """Have the map refreshed where the node did not answer; an error that it answers shows nothing of the kind."""
        if isinstance(error, ConnectionError | TimeoutError | OSError):
            self._wanted, self._silent[node.name] = True, time.monotonic()

    def _refresh_after_fault(self) -> None:
        """Refresh the map after a node has failed, at most once a second; no thread waits for the one that does."""
        due = self._wanted and time.monotonic() >= self._refreshed + EVERY
        if due and self._refreshing.acquire(blocking=False):
            self._refresh_and_release()

    def _redirect(self, commands: Sequence[Command], answers: list[Any], places: list[int]) -> list[Any]:
        """Follow the slots that have moved, or are being moved, for as long as one answer may take: keys of a slot that
        is being moved may be on both masters for a moment."""
        until = time.monotonic() + min(self._seconds, deadline.left())
        while places and time.monotonic() < until:
            if any(isinstance(answers[place], TryAgainError) for place in places):
                time.sleep(_PAUSE)
            again = {}
            for place in places:
                try:
                    again[place] = self._redirected(commands[place], answers[place])
                except ConnectionError as error:  # an answer too: what was done in the other places stays done
                    answers[place] = error
            for place, answer in zip(again, self._send(list(again.values())), strict=True):
                answers[place] = answer
            places = [place for place in again if isinstance(answers[place], (AskError, TryAgainError))]
        return answers

    def _redirected(self, command: Command, answer: Any) -> tuple[ClusterNode, tuple[Command, ...]]:
        manager = self._cluster.nodes_manager
        if isinstance(answer, MovedError):
            there = manager.get_node(answer.host, answer.port)
            if there is None or there.server_type != PRIMARY:
                connection.made += 1  # as above
            with suppress(LookupError):  # the map has not got the slot: _node raises
                manager.move_slot(answer)
            self.refresh_later()  # others may have moved too
        elif isinstance(answer, AskError):
            place = answer.host, answer.port
            there = manager.get_node(*place) or self._asked.get(place) or node_at(place)
            self._asked[place] = there
            return there, (("ASKING",), command)
        return self._node(command), (command,)

    def _node(self, command: Command) -> ClusterNode:
        """Return the master that has the command's key; raise ConnectionError where no node has its slot."""
        key = command[3] if command[0] == "EVALSHA" else command[1]
        owners = self._cluster.nodes_manager.slots_cache.get(key_slot(key.encode() if isinstance(key, str) else key))
        if not owners:
            self.refresh_later()
            raise ConnectionError("connecting to the master of a slot: there is none")
        return owners[0]

    def _send(self, sent: Sequence[tuple[ClusterNode, tuple[Command, ...]]]) -> list[Any]:
        """Send to all nodes, then read from all; return the answer of the last command of each. All nodes together have
        the time of one: what has not begun to answer by then is given up."""
        until = time.monotonic() + min(self._seconds, deadline.left())
        answers: list[Any] = [None] * len(sent)
        by_node: dict[str, list[int]] = {}
        for place, (node, _) in enumerate(sent):
            by_node.setdefault(node.name, []).append(place)
        waiting: list[tuple[KeptConnections, Any, list[int]]] = []
        try:
            for places in by_node.values():
                node = sent[places[0]][0]
                commands = [_words(command) for place in places for command in sent[place][1]]
                with _Into(self, node, answers, places):
                    if time.monotonic() > until:
                        raise ConnectionError("connecting to a node: others took all the time")
                    kept = self._kept_of(node)
                    waiting.append((kept, kept.send(commands), places))
            while waiting:
                kept, sent_on, places = waiting.pop(0)
                with _Into(self, sent[places[0]][0], answers, places):
                    found = iter(kept.receive(sent_on, sum(len(sent[place][1]) for place in places), until))
                    for place in places:
                        for _ in sent[place][1]:
                            answers[place] = next(found)
        finally:
            for kept, sent_on, _ in waiting:
                kept.drop(sent_on)
        return answers

    def _kept_of(self, node: ClusterNode) -> KeptConnections:
        pool = self._cluster.get_redis_connection(node).connection_pool
        before = self._kept.get(node.name)
        if before and before[0] is pool:
            return before[1]
        if before:
            before[1].close()
        kept = KeptConnections(pool)
        self._kept[node.name] = (pool, kept)
        return kept


class _Into:
    """Puts a fault of a node into the places of its answers."""

    def __init__(self, routes: Routes, node: ClusterNode, answers: list[Any], places: list[int]) -> None:
        self._routes, self._node, self._answers, self._places = routes, node, answers, places

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, _FAULTS):
            return False
        self._routes.note_fault(self._node, error)
        for place in self._places:
            self._answers[place] = error
        return True


class RoutedPipeline(Pipeline):
    """A pipeline whose commands go to the masters that have their keys, to all of these at once."""

    def __init__(self, routes: Routes, callbacks: Any) -> None:
        super().__init__(None, callbacks, transaction=False, shard_hint=None)  # type: ignore[arg-type]
        self._routes = routes

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        stack, scripts = self.command_stack, self.scripts
        self.command_stack, self.scripts = [], set()
        commands = [command for command, _ in stack]
        answers = self._routes.call_each(commands) if commands else []
        unknown = [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if scripts and unknown:
            for script in scripts:
                self._routes.call("SCRIPT", "LOAD", script.script)
            for place, answer in zip(unknown, self._routes.call_each([commands[one] for one in unknown]), strict=True):
                answers[place] = answer
        for place, (command, options) in enumerate(stack):
            answers[place] = self._parsed(command[0], answers[place], options)
            if raise_on_error and isinstance(answers[place], Exception):
                raise answers[place]
        return answers

    def _parsed(self, name: str, answer: Any, options: dict[str, Any]) -> Any:
        callback = self.response_callbacks.get(name)  # type: ignore[no-untyped-call]
        if callback is None or isinstance(answer, Exception):
            return answer
        return callback(answer, **{option: value for option, value in options.items() if option != "keys"})


def node_at(place: tuple[str, int]) -> ClusterNode:
    """Return the node at that host and port, to which nothing is connected yet."""
    return ClusterNode(*place)  # type: ignore[no-untyped-call]


def _words(command: Command) -> Command:
    """Return the command with a name of several words taken apart."""
    name = command[0]
    return (*name.split(), *command[1:]) if isinstance(name, str) and " " in name else command
