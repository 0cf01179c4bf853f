"""A TCP proxy of ours in front of a store, so that the wire itself can be at fault.

A store that is stopped or killed fails cleanly; networks, load balancers and failing machines do not. The
proxy runs in the test's process, in a thread of its own, and changes what it does from one moment to the next.
"""

import asyncio
import contextlib
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Coroutine
from enum import Enum
from typing import Any

from tests.servers import free_port

_GARBAGE = b"HTTP/1.1 502 Bad Gateway\r\n\r\n\x00\xff<html>" * 4
_DRIP_SECONDS = 0.05
_LISTEN_SECONDS = 5.0
_RST = struct.pack("ii", 1, 0)  # linger on, for no time: closing then sends a reset


class Mode(Enum):
    """What the proxy does with traffic."""

    PASS = "pass"
    REFUSE = "refuse"  # no connection is accepted, and those that there are end
    FREEZE = "freeze"  # accepted, never answered; what was held goes on its way afterwards, late
    SLOW = "slow"  # so many milliseconds each way
    DRIP = "drip"  # an answer comes byte by byte: each receive is in time, the whole is not
    CUT = "cut"  # half of an answer, then the end: the store has done what it was asked
    RESET = "reset"  # a reset in place of an answer: the store was never asked
    GARBAGE = "garbage"  # something that is no answer: the store has done what it was asked


class _Cut(Exception):
    """This connection ends here."""


class Proxy:
    """Listens on a port of its own and passes everything on to a store's."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        self._target = target
        self._mode = Mode.PASS
        self._seconds = 0.0
        self._changed = asyncio.Event()
        self._listener: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self._open: Counter[int] = Counter()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def start(self) -> "Proxy":
        self._thread.start()
        self._await(self._listen())
        return self

    def set(self, mode: Mode, milliseconds: int = 0) -> None:
        """Behave so from now on, with the connections that there are and with new ones."""
        self._await(self._set(mode, milliseconds / 1000))

    def redirect(self, target: int) -> None:
        """Pass on to another port from now on; connections that there are stay where they are."""
        self._target = target

    def connections_to(self, target: int) -> int:
        """Return how many connections to that port are open."""
        return self._open[target]

    def stop(self) -> None:
        if not self._thread.is_alive():
            self._loop.close()
            return
        self._await(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _await(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    async def _set(self, mode: Mode, seconds: float) -> None:
        self._mode, self._seconds = mode, seconds
        self._changed.set()
        self._changed = asyncio.Event()
        if mode is Mode.REFUSE:
            self._deafen()
        elif self._listener is None:
            await self._listen()

    async def _listen(self) -> None:
        """Listen; meanwhile the kernel may have given the port to an outgoing connection."""
        deadline = time.monotonic() + _LISTEN_SECONDS
        while True:
            try:
                self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.02)

    def _deafen(self) -> None:
        if self._listener:
            self._listener.close()
            self._listener = None
        for writer in self._connections:
            writer.transport.abort()

    async def _close(self) -> None:
        self._deafen()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        self._connections.add(writer)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._join(reader, writer)
        self._connections.discard(writer)
        self._tasks.discard(task)
        writer.close()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = self._target
        self._open[target] += 1
        try:
            await self._join_to(target, reader, writer)
        finally:
            self._open[target] -= 1

    async def _join_to(self, target: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        store_reader, store_writer = await asyncio.open_connection("127.0.0.1", target)
        self._connections.add(store_writer)
        there = asyncio.create_task(self._pump(reader, store_writer, self._request))
        back = asyncio.create_task(self._pump(store_reader, writer, self._answer))
        try:
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (there, back):
                task.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
            self._connections.discard(store_writer)
            store_writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pass_on: Any) -> None:
        with contextlib.suppress(OSError, _Cut):
            while data := await reader.read(65_536):
                while self._mode is Mode.FREEZE:
                    await self._changed.wait()
                if self._mode is Mode.SLOW:
                    await asyncio.sleep(self._seconds)
                await pass_on(data, writer)
                await writer.drain()

    async def _request(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        if self._mode is Mode.RESET:
            self._reset()
            raise _Cut
        writer.write(data)

    async def _answer(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        if self._mode is Mode.DRIP:
            while data and self._mode is Mode.DRIP:
                writer.write(data[:1])
                data = data[1:]
                await asyncio.sleep(_DRIP_SECONDS)
        elif self._mode is Mode.CUT:
            writer.write(data[: len(data) // 2])
            await writer.drain()
            raise _Cut
        elif self._mode is Mode.GARBAGE:
            data = _GARBAGE
        writer.write(data)

    def _reset(self) -> None:
        """Reset every connection: the middle box has lost its table."""
        for writer in self._connections:
            raw: socket.socket | None = writer.get_extra_info("socket")
            if raw and raw.fileno() >= 0:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
            writer.transport.abort()
