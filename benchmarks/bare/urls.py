"""`/nothing` answers at once, `/floor` after the floor's turn; both with an answer as long as onesource's."""

import time
from typing import Any

from django.urls import path
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from benchmarks.contenders import Floor
from benchmarks.messages import ANSWER

FLOOR = Floor()
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
