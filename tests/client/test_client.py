"""The client against a running server: what it carries, what it reports, and what it sends again."""

import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import product
from typing import Any

import pytest
from django.core.wsgi import get_wsgi_application
from pytest_django import Settings

from onesource_client import AsyncClient, Client, Retries, errors
from tests import environment
from tests.builders import a_session, make_token
from tests.client.conftest import KINDS, Begin, Failures, Running, connected, serving, text_of
from tests.deploy.files import ROOT
from tests.servers import eventually


@pytest.fixture(autouse=True)
def _answers_go_on(running: Running) -> Iterator[None]:
    yield
    running.hold.unlink(missing_ok=True)


@pytest.fixture
def both_stores_afterwards(running: Running) -> Iterator[None]:
    yield
    restart_stores()
    running.service.wait()


def restart_stores() -> None:
    for server in (environment.REDIS, environment.MONGO):
        if server.process:
            server.thaw()
        else:
            server.start()


class TestConversation:
    def test_a_new_conversation_goes_on_with_its_session_id(self, begin: Begin) -> None:
        conversation = begin()
        first, second = conversation.ask("One?"), conversation.ask("Two?")
        assert (str(first), str(second)) == ("You asked: One? (0 before)", "You asked: Two? (2 before)")
        assert second.session_id == first.session_id == conversation.session_id
        assert (second.msg_count_before, second.behind, second.stored_in) == (2, False, ("redis",))
        assert conversation.last_message_id == second.message_id > first.message_id

    def test_a_conversation_has_the_user_that_it_was_made_with(self, begin: Begin) -> None:
        conversation = begin(user="ada@example.org")
        conversation.ask("One?")
        "".join(conversation.stream("Two?"))
        conversation.add_turn("Three?", "Three.")
        assert json.loads(conversation.export())["user"] == "ada@example.org"
        with pytest.raises(errors.OtherUser):
            begin(conversation.session_id, user="eve").ask("Four?")
        begin(conversation.session_id).ask("Five?")
        with pytest.raises(ValueError, match="a user has"):
            begin(user="a b")

    def test_pieces_come_while_the_answer_is_made(self, begin: Begin, running: Running) -> None:
        conversation = begin()
        running.hold.touch()
        stream = conversation.stream("Piece by piece?")
        pieces = iter(stream)
        first = next(pieces)
        running.hold.unlink()
        assert (first, stream.answer) == ("You asked: ", None)
        assert first + "".join(pieces) == stream.answer.answer == "You asked: Piece by piece? (0 before)"
        assert (stream.replaced, conversation.session_id) == (False, stream.answer.session_id)

    def test_a_question_whose_stream_is_broken_off_begins_the_conversation(
        self, begin: Begin, running: Running
    ) -> None:
        conversation, key = begin(), a_session()
        running.hold.touch()
        pieces = iter(conversation.stream("One?", idempotency_key=key))
        next(pieces)
        pieces.close()
        running.hold.unlink()
        begin(conversation.session_id).ask("One?", idempotency_key=key)  # waits until it is stored
        assert conversation.ask("Two?").msg_count_before == 2

    def test_the_history_has_every_message_with_its_key(self, begin: Begin) -> None:
        conversation = begin()
        assert list(conversation.history()) == []
        conversation.ask("One?", idempotency_key="k-1")
        history = conversation.history()
        assert [(each.role, each.content, each.key) for each in history] == [
            ("user", "One?", "k-1"),
            ("assistant", "You asked: One? (0 before)", None),
        ]
        assert (history.store, history.behind, history[-1].id) == ("redis", False, conversation.last_message_id)

    def test_another_client_goes_on_by_session_id(self, begin: Begin) -> None:
        first = begin().ask("One?")
        again = begin(first.session_id, last_message_id=first.message_id)
        assert again.ask("Two?").msg_count_before == 2

    def test_a_turn_that_was_answered_elsewhere_is_stored(self, begin: Begin) -> None:
        conversation = begin()
        added = conversation.add_turn("One?", "An answer from elsewhere.")
        assert (added.answer, added.stored_in) == ("An answer from elsewhere.", ("redis",))
        assert conversation.ask("Two?").msg_count_before == 2

    def test_a_conversation_is_exported(self, begin: Begin) -> None:
        conversation = begin()
        conversation.add_turn("One?", "Żółć.")
        assert json.loads(conversation.export())["messages"][1]["content"] == "Żółć."
        assert conversation.export("markdown").startswith(f"# {conversation.session_id}\n")

    def test_a_deleted_conversation_is_not_found(self, begin: Begin) -> None:
        conversation = begin()
        conversation.ask("One?")
        conversation.delete()
        for call in (conversation.history, conversation.delete, conversation.export):
            with pytest.raises(errors.NotFound):
                call()
        assert conversation.ask("Two?").new_thread

    @pytest.mark.parametrize("session", ["", ".", "..", "a/b", "a" * 129, "a\n"])
    def test_a_session_id_that_is_none_is_refused_before_it_is_sent(self, begin: Begin, session: str) -> None:
        with pytest.raises(ValueError, match="session_id"):
            begin(session)


class TestRefused:
    @pytest.mark.parametrize("client", [Client, AsyncClient])
    def test_an_address_or_a_token_that_is_none_is_refused_at_once(self, client: Any) -> None:
        for url in ("localhost:8001", "ftp://localhost", "http://"):
            with pytest.raises(ValueError, match="http://"):
                client(url)
        with pytest.raises(ValueError, match="line ends") as caught:
            client("http://localhost:8001", "secret\n")
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize("key", ["", "k 1", "k\n", "ż", "k" * 129])
    def test_a_key_that_is_none_is_refused_before_it_is_sent(self, begin: Begin, key: str) -> None:
        with pytest.raises(ValueError, match="Idempotency-Key"):
            begin().ask("What?", idempotency_key=key)

    def test_an_invalid_question_is_named(self, begin: Begin) -> None:
        with pytest.raises(errors.InvalidRequest, match="question: ") as caught:
            begin().ask(" ")
        assert (caught.value.status, caught.value.code) == (400, "invalid")

    def test_a_key_of_another_question_is_refused(self, begin: Begin) -> None:
        conversation = begin(a_session())
        conversation.ask("One?", idempotency_key="k-1")
        with pytest.raises(errors.KeyReused):
            conversation.ask("Two?", idempotency_key="k-1")

    def test_a_key_whose_turn_was_deleted_is_refused(self, begin: Begin) -> None:
        conversation = begin(a_session())
        conversation.ask("One?", idempotency_key="k-1")
        at = conversation.history()[0].at
        conversation.delete()
        with pytest.raises(errors.KeyExpired) as caught:
            conversation.ask("One?", idempotency_key="k-1")
        assert caught.value.asked_at == at


@pytest.mark.usefixtures("both_stores_afterwards")
class TestOutages:
    def test_with_redis_killed_the_answer_is_behind(self, begin: Begin) -> None:
        conversation = begin()
        conversation.ask("One?")
        environment.REDIS.kill()
        answer = conversation.ask("Two?")
        assert (answer.behind, answer.stored_in, answer.msg_count_before) == (True, ("mongo",), 0)
        with pytest.raises(errors.ContextBehind):
            conversation.ask("Three?", require_context=True)
        assert conversation.history().behind
        environment.REDIS.start()
        eventually(lambda: len(conversation.history()) == 4, "what each store has is not read together")

    def test_redis_is_killed_in_the_middle_of_an_answer(self, begin: Begin, running: Running) -> None:
        conversation = begin()
        running.hold.touch()
        stream = conversation.stream("What now?")
        pieces = iter(stream)
        first = next(pieces)
        environment.REDIS.kill()
        running.hold.unlink()
        assert first + "".join(pieces) == stream.answer.answer == "You asked: What now? (0 before)"
        assert (stream.answer.stored_in, stream.replaced) == (("mongo",), False)
        environment.REDIS.start()
        assert [each.content for each in conversation.history()] == ["What now?", stream.answer.answer]

    def test_a_question_waits_for_a_store(self, begin: Begin, failures: Failures) -> None:
        conversation = begin()
        environment.REDIS.kill()
        environment.MONGO.kill()
        failures.then = restart_stores
        assert not conversation.ask("Is anybody there?").behind
        assert set(failures.seen) == {"StoreUnavailable"}
        assert len(conversation.history()) == 2

    def test_an_unknown_outcome_is_stored_once(self, begin: Begin, running: Running, failures: Failures) -> None:
        question = f"Frozen {a_session()}?"
        conversation = begin()
        running.hold.touch()
        failures.then = restart_stores
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(conversation.ask, question)
            running.wait_until_asked(question)
            environment.REDIS.freeze()
            environment.MONGO.freeze()
            running.hold.unlink()
            answer = asking.result(60)
        assert failures.seen[0] == "OutcomeUnknown"
        assert [each.content for each in conversation.history()] == [question, answer.answer]

    def test_a_server_that_is_killed_in_the_middle_is_asked_again(self, running: Running, failures: Failures) -> None:
        """By both clients, with and without streaming."""
        killed = threading.Event()
        running.hold.touch()

        def start_again() -> None:
            killed.wait(30)
            running.hold.unlink()
            running.service.start().wait()

        failures.then = start_again
        with ExitStack() as clients, ThreadPoolExecutor(4) as pool:
            asking = []
            for kind, streams in product(KINDS, (False, True)):
                conversation = clients.enter_context(connected(kind, running.url))()
                question = f"Killed {a_session()}?"
                asking.append((conversation, question, pool.submit(text_of, conversation, question, streams)))
            for _, question, _ in asking:
                running.wait_until_asked(question)
            running.service.kill()
            killed.set()
            for conversation, question, answered in asking:
                assert (text := answered.result(90)) == f"You asked: {question} (0 before)"
                assert [each.content for each in conversation.history()] == [question, text]
        assert (set(failures.seen), len(failures.seen) >= len(asking)) == ({"Unreachable"}, True)

    def test_a_question_that_is_sent_again_is_answered_once(self, begin: Begin, running: Running) -> None:
        """The server goes on with an answer whose client has gone; the next try waits for it."""
        question, key = f"Lost {a_session()}?", a_session()
        running.hold.touch()
        pieces = iter(begin().stream(question, idempotency_key=key))
        assert next(pieces) == "You asked: "
        pieces.close()
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(begin().ask, question, idempotency_key=key)
            running.hold.unlink()
            answer = asking.result(60)
        assert (answer.answer, running.asked(question)) == (f"You asked: {question} (0 before)", 1)

    def test_what_still_fails_can_be_asked_again_later(self, running: Running) -> None:
        with Client(running.url, retries=Retries(tries=2, pause=0.01)) as client:
            conversation = client.conversation()
            environment.REDIS.kill()
            environment.MONGO.kill()
            with pytest.raises(errors.StoreUnavailable) as caught:
                conversation.ask("Later?")
            restart_stores()
            running.service.wait()
            key = caught.value.idempotency_key
            first = conversation.ask("Later?", idempotency_key=key)
            again = client.conversation().ask("Later?", idempotency_key=key)
        assert (again.message_id, again.replayed) == (first.message_id, True)

    def test_a_reply_that_cannot_be_decoded_is_unreachable(self) -> None:
        def garbled(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            start_response("200 OK", [("Content-Encoding", "gzip"), ("Content-Length", "4")])
            return [b"none"]

        with serving(garbled) as url, Client(url, retries=Retries(tries=1)) as client:
            conversation = client.conversation("s")
            with pytest.raises(errors.Unreachable, match="DecodingError"):
                conversation.history()

    def test_without_a_server_it_is_unreachable(self) -> None:
        client = Client("http://127.0.0.1:9", retries=Retries(tries=2, pause=0.01))
        with client, pytest.raises(errors.Unreachable, match="ConnectError") as caught:
            client.conversation().ask("Anybody?")
        assert caught.value.idempotency_key


class TestDocuments:
    @pytest.mark.parametrize("path", ["README.md", "onesource_client/README.md"])
    def test_the_example_runs(self, running: Running, path: str, capsys: pytest.CaptureFixture[str]) -> None:
        text = (ROOT / path).read_text()
        example = next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "Client(" in block)
        assert len(example.strip().splitlines()) <= 10
        exec(example.replace("http://localhost:8001", running.url), {})  # noqa: S102  (our own document)
        assert "You asked: What did I just ask about? (2 before)" in capsys.readouterr().out


@pytest.fixture
def guarded(settings: Settings) -> Iterator[str]:
    """The address of the service in this process, which starts at once: for what its settings decide."""
    settings.CHAT_AUTH, settings.CHAT_RATE = "token", "2/min"
    with serving(get_wsgi_application()) as url:
        yield url


def test_a_token_is_sent_and_a_wrong_one_refused(guarded: str) -> None:
    with Client(guarded, "none of theirs") as client, pytest.raises(errors.NotAuthorized):
        client.conversation().ask("May I?")
    with Client(guarded, make_token(a_session()), retries=Retries(seconds=1)) as client:
        conversation = client.conversation()
        for question in ("One?", "Two?"):
            conversation.ask(question)
        with pytest.raises(errors.RateLimited) as caught:
            conversation.ask("Three?")
    assert 1 <= caught.value.retry_after <= 64
