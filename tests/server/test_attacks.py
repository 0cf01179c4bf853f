"""What one client can do to all others: nothing. Probes answer during each attack, and everybody after it."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.builders import a_session
from tests.faults.service import Service
from tests.server import clients
from tests.server.conftest import waiting
from tests.servers import eventually

PROBES = ("/livez", "/healthz", "/readyz", "/metrics")


def probes_answer(service: Service) -> bool:
    return all(service.request("GET", path, port=service.management_port)[0] == 200 for path in PROBES)


@pytest.fixture(autouse=True)
def _as_well_as_before(service: Service) -> Iterator[None]:
    """After each attack probes answer, and so does a question on the public port."""
    yield
    assert probes_answer(service)
    assert service.request("GET", "/livez")[0] == 200
    assert clients.status(clients.answer(service.port, clients.ask("Still there?", a_session()))) == 200


def test_http2_is_refused_before_it_holds_anything(service: Service) -> None:
    with clients.held(service.port, 6, clients.http2_streams(190)) as connections:
        assert probes_answer(service)
        assert all(clients.status(clients.rest(each)) == 400 for each in connections)


def test_idle_connections_keep_nobody_out(service: Service) -> None:
    with clients.held(service.port, 2100):
        assert probes_answer(service)
        assert service.request("GET", "/livez")[0] == 200


def test_bodies_that_do_not_come_hold_no_thread(service: Service) -> None:
    begun = clients.post(b"x" * 1000)[:-990]
    with clients.held(service.port, 300, begun):
        assert probes_answer(service)
        reply = clients.answer(service.port, clients.ask("Is there a thread?", a_session()))
    assert clients.status(reply) == 200


def test_answers_that_take_long_keep_no_probe_waiting(service: Service, hold: Path) -> None:
    hold.touch()
    with ThreadPoolExecutor(140) as pool:
        answers = [pool.submit(clients.answer, service.port, clients.ask("Slow?", a_session())) for _ in range(140)]
        try:
            eventually(lambda: waiting(service) >= 40, "the answers are not being held", 60)
            assert probes_answer(service)
            assert all(service.request("GET", path)[0] == 200 for path in PROBES)
        finally:
            hold.unlink()
        assert {clients.status(answer.result()) for answer in answers} == {200}


def test_an_upload_is_refused_by_its_length_and_touches_no_disk(service: Service) -> None:
    head = clients.post(b"", "/livez", kind="multipart/form-data; boundary=x").replace(b": 0\r", b": 300000000\r")
    with clients.connect(service.port, head) as connection:
        reply = clients.rest(connection)
    assert clients.status(reply) == 413
    assert b'{"code":"too_large","detail":"The request body is longer than 524288 bytes.","request_id":"' in reply
    assert list((service.home / "tmp").iterdir()) == []


def test_an_upload_without_a_length_is_cut_off(service: Service) -> None:
    head = b"POST /livez HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with clients.connect(service.port, head) as connection:
        for _ in range(10):
            connection.sendall(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
        assert clients.status(connection.recv(65_536)) == 413


def test_bodies_that_fill_the_memory_keep_no_small_one_out(service: Service) -> None:
    """What is left of the memory for bodies is filled up, by ever smaller ones."""
    with ExitStack() as stack:
        for size, number in ((500_000, 300), (50_000, 30), (5_000, 30), (500, 30)):
            stack.enter_context(clients.held(service.port, number, clients.post(b"x" * (size + 1))[:-1]))
        replies = [clients.answer(service.port, clients.ask("Room?", a_session())) for _ in range(4)]
    assert [clients.status(reply) for reply in replies] == [200] * 4


def test_a_question_that_waits_is_not_asked_once_its_client_has_gone(service: Service, hold: Path) -> None:
    hold.touch()
    asked = sum(service.metric("msg_count_before_count"))
    try:
        with clients.held(service.port, 200, clients.ask("Still there?", a_session())):
            eventually(lambda: waiting(service) >= 40, "the answers are not being held", 60)
    finally:
        hold.unlink()
    eventually(lambda: waiting(service) == 0, "not every answer has ended", 60)
    assert clients.status(clients.answer(service.port, clients.ask("Now?", a_session()))) == 200
    assert sum(service.metric("msg_count_before_count")) - asked < 200


def test_unknown_fields_get_an_answer_of_a_bounded_length(service: Service) -> None:
    body = json.dumps({"question": "And?"} | {f"f{number}": 1 for number in range(40_000)}).encode()
    reply = clients.answer(service.port, clients.post(body))
    assert clients.status(reply) == 400
    assert len(reply.partition(b"\r\n\r\n")[2]) <= 8192
