"""What a worker runs: uvicorn, with our connections and our gate."""

import signal
import socket

import uvicorn
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler

from ops.server import connections, processes
from ops.server.gate import Gate


class _Server(uvicorn.Server):
    """Handles SIGTERM from its start on: `processes` has it blocked until then."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        await super().startup(sockets)


def run(application: WSGIHandler, listening: processes.Listening) -> None:
    """Serve until SIGTERM; return when the last answer is sent or its time is over."""
    connections.Connection.max_connections = connections.allowed_connections()
    config = uvicorn.Config(
        Gate(application, settings.WEB_THREADS, probes_only=listening.probes_only),
        http=connections.Connection,
        ws="none",
        loop="uvloop",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        log_config=None,  # Django has set it up
        proxy_headers=False,  # Django's settings name the headers of a proxy to trust
        server_header=False,
        timeout_keep_alive=connections.IDLE_SECONDS,
        timeout_graceful_shutdown=processes.drain_seconds(),
    )
    _Server(config).run([listening.open()])
