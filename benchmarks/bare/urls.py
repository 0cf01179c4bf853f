"""`/nothing` answers at once, `/floor` after the floor's turn; both with an answer as long as onesource's."""

import time
from functools import cached_property
from typing import Any

from django.urls import path
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from benchmarks.contenders import Floor, loads
from benchmarks.messages import ANSWER, Pair, lines
from conversations.stores.redis.kept import KeptConnections


class KeptFloor(Floor):
    """The floor's turn over connections that are kept as onesource keeps them: with redis-py's own pool this view gives
    fewer answers."""

    @cached_property
    def connections(self) -> KeptConnections:
        self.client.script_load(self.SCRIPT)
        return KeptConnections(self.client.connection_pool)

    def turn(self, session: str, pair: Pair) -> None:
        value = self.connections.call("GET", f"floor:{session}")
        assert loads(b"[%s]" % b",".join(value[:-1].split(b"\n"))) is not None
        self.connections.call("EVALSHA", self.script.sha, 1, f"floor:{session}", lines(pair), "1")


FLOOR = KeptFloor()
BODY: dict[str, Any] = {
    "session_id": "bench-1", "answer": ANSWER, "message_id": "0" * 36, "msg_count_before": 40, "new_thread": False,
    "store": "redis", "stored_in": ["redis"], "persisted": True, "context": "full", "replayed": False,
}  # fmt: skip


class Nothing(APIView):
    def post(self, request: Request) -> Response:
        return Response(BODY)


class FloorTurn(APIView):
    seconds = 0.0

    def post(self, request: Request) -> Response:
        question, session = request.data["question"], request.data["session_id"]
        if self.seconds:
            time.sleep(self.seconds)
        FLOOR.turn(session, (question, ANSWER))
        return Response(BODY | {"session_id": session})


urlpatterns = [
    path("nothing", Nothing.as_view()),
    path("floor", FloorTurn.as_view()),
    path("floor-after-a-second", FloorTurn.as_view(seconds=1.0)),
]
