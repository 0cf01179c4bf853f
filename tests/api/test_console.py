"""Conversations in the admin: found, read, exported and deleted by people who may, also in an outage."""

import html
import json
import re
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any
from urllib.parse import urlencode
from zipfile import ZipFile

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client

from conversations import history
from conversations.stores import ALIASES, MONGO, REDIS, store
from ops import lease
from ops.console import conversations
from ops.console.words import rendered
from ops.models import AuditEntry
from telemetry.logs import hashed
from tests import environment
from tests.builders import a_session, a_turn
from tests.servers import RedisServer

LIST = "/admin/conversations/conversation/"


def person(name: str, *groups: str, **fields: Any) -> Client:
    user, _ = User.objects.update_or_create(username=name, defaults={"is_staff": True, **fields})
    user.groups.set(Group.objects.filter(name__in=groups))
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def support() -> Client:
    return person("support", "Support")


def page(client: Client, session: str, name: str = "change", **query: str) -> Any:
    # The admin quotes what could end a part of an address.
    return client.get(f"{LIST}conv_3A{session.replace('_', '_5F').replace(':', '_3A')}/{name}/", query)


def put(session: str, *aliases: str, question: str = "What?", answer: str = "That.") -> None:
    turn = a_turn(question, answer)
    for alias in aliases:
        store(alias).append(session, turn)


def test_one_hit_is_its_page(support: Client) -> None:
    session = a_session()
    put(session, MONGO, answer="Only **MongoDB** has it.")
    response = support.get(LIST, {"q": session}, follow=True)
    assert response.redirect_chain
    assert "<strong>MongoDB</strong>" in response.content.decode()


def listed(response: Any) -> list[str]:
    return re.findall(r'data-label="Session"><a [^>]*>([^<]+)<', response.content.decode())


def test_the_newest_are_listed_first_and_between_two_dates(support: Client) -> None:
    name = a_session()
    for day in (1, 2, 3, 4):
        turn = a_turn(at=datetime(2031, 5, day, 12, tzinfo=UTC))
        store(ALIASES[day % 2]).append(f"shop{day % 2}:{name}.{day}", turn)
    assert listed(support.get(LIST, {"q": name})) == [f"{name}.{day}" for day in (4, 3, 2, 1)]
    found = support.get(LIST, {"q": name, "since": "2031-05-02", "until": "2031-05-03"})
    assert listed(found) == [f"{name}.3", f"{name}.2"]
    assert listed(support.get(LIST, {"since": "2031-05-04", "until": "2031-05-04"})) == [f"{name}.4"]
    none = support.get(LIST, {"since": "2040-06-01", "until": "2040-06-02"}).content.decode()
    assert "No conversation has its last message between these dates." in none
    assert "Enter a valid date." in support.get(LIST, {"since": "soon"}).content.decode()


@pytest.mark.parametrize("query", [{}, {"user": "somebody"}])
def test_the_list_says_who_is_logged_in(support: Client, query: dict[str, str]) -> None:
    assert re.search("<strong>support</strong>", support.get(LIST, query).content.decode())


def test_the_next_page_has_the_same_dates(support: Client) -> None:
    for number in range(51):
        store(REDIS).append(a_session(), a_turn(at=datetime(2032, 5, 1, 12, number, tzinfo=UTC)))
    query = {"since": "2032-05-01", "until": "2032-05-01"}
    first = support.get(LIST, query)
    following = re.search(r'href="([^"]+)">next page', first.content.decode())
    assert following
    rest = support.get(LIST + html.unescape(following[1]))
    assert (len(listed(first)), len(listed(rest))) == (50, 1)


def test_the_list_has_sizes_and_the_newest_question_which_is_audited(support: Client) -> None:
    name = a_session()
    for number in (1, 2):
        put(f"{name}.{number}", *ALIASES, question=f"<b>Which</b>\nroom, {number}?", answer="x" * 3000)
    before = AuditEntry.objects.count()
    shown = support.get(LIST, {"q": name}).content.decode()
    assert "&lt;b&gt;Which&lt;/b&gt; room, 2?" in shown
    assert re.findall(r'data-label="Size">([^<]+)<', shown) == ["3.2\xa0KB"] * 2
    assert "2 conversations" in shown
    (entry,) = AuditEntry.objects.order_by("id")[before:]
    assert (entry.who, entry.action) == ("support in the admin", "conversations previewed")
    assert entry.before == {"sessions": [hashed(f"{name}.2"), hashed(f"{name}.1")]}


def test_no_words_on_the_list_leave_no_audit_entry(support: Client) -> None:
    before = AuditEntry.objects.count()
    support.get(LIST, {"q": a_session()})
    assert AuditEntry.objects.count() == before


def test_more_than_a_page_is_counted_about(support: Client, redis_server: RedisServer) -> None:
    for number in range(51):
        for alias in ALIASES:
            store(alias).append(a_session(), a_turn(at=datetime(2033, 5, 1, 12, number, tzinfo=UTC)))
    assert re.search(r"about [\d,]+ conversations", support.get(LIST).content.decode())
    dates = {"since": "2033-05-01", "until": "2033-05-01"}
    assert "about 51 conversations" in support.get(LIST, dates).content.decode()
    redis_server.kill()
    try:
        out = support.get(LIST, dates).content.decode()
    finally:
        redis_server.start()
    assert "Redis is out: conversations may be missing here." in out
    assert "about 51 conversations" in out


@pytest.mark.parametrize(
    ("age", "text"),
    [
        (timedelta(seconds=20), "just now"),
        (timedelta(hours=3, minutes=20), "3\xa0hours ago"),
        (timedelta(days=40), "2026-01-20"),
        (timedelta(days=-1), "2026-03-02"),
    ],
)
def test_times_are_for_people(monkeypatch: pytest.MonkeyPatch, age: timedelta, text: str) -> None:
    moment = datetime(2026, 3, 1, 12, tzinfo=UTC)
    monkeypatch.setattr(conversations, "now", lambda: moment)
    assert conversations._ago(moment - age) == text


def test_no_hit_says_so(support: Client) -> None:
    response = support.get(LIST, {"q": a_session()})
    assert "No conversation has" in response.content.decode()


def test_an_outage_is_no_missing_conversation(support: Client, redis_server: RedisServer) -> None:
    session = a_session()
    put(session, REDIS)
    redis_server.kill()
    try:
        listed, read = support.get(LIST, {"q": session}), page(support, session)
    finally:
        redis_server.start()
    assert "This does not mean that there is none" in listed.content.decode()
    assert read.status_code == 503
    assert "Redis is out, and may have it" in read.content.decode()
    missing = page(support, a_session())
    assert (missing.status_code, missing["Content-Type"]) == (404, "text/html; charset=utf-8")


def test_a_transcript_has_what_both_stores_have_and_is_audited(support: Client) -> None:
    session = f"shop:{a_session()}"
    put(session, REDIS, question="First?")
    put(session, MONGO, question="Second?")
    before = AuditEntry.objects.count()
    shown = page(support, session).content.decode()
    assert shown.index("First?") < shown.index("Second?")
    assert all(text in shown for text in ("shop", "Redis: 2 messages", "MongoDB: 2 messages"))
    entry = AuditEntry.objects.order_by("id").last()
    assert AuditEntry.objects.count() == before + 1
    assert (entry.who, entry.action) == ("support in the admin", "conversation read")
    assert session not in json.dumps([entry.before, entry.after, entry.outcome])


@pytest.mark.parametrize("form", ["json", "markdown"])
def test_an_export_is_a_file_and_is_audited(support: Client, form: str) -> None:
    session = a_session()
    put(session, REDIS, question="What is kept?")
    response = page(support, session, "export", **{"as": form})
    assert "attachment" in response["Content-Disposition"]
    assert "What is kept?" in response.content.decode()
    assert AuditEntry.objects.order_by("id").last().action == "conversation export"


def test_a_deletion_needs_the_session_and_a_reason_and_gives_a_receipt(support: Client) -> None:
    session = a_session()
    put(session, *ALIASES)
    address = f"{LIST}conv_3A{session}/delete/"
    for typed in ({"session": session}, {"session": f"{session}x", "reason": "asked"}, {"reason": "asked"}):
        assert support.post(address, typed).status_code == 200
        assert history.read(session).found
    receipt = support.post(address, {"session": session, "reason": "their user asked"}).content.decode()
    assert "Redis and MongoDB" in receipt
    assert store(REDIS).inspect(session).tombstone in receipt
    assert not history.read(session).found
    entry = AuditEntry.objects.order_by("id").last()
    assert (entry.action, entry.reason, entry.outcome) == ("conversation delete", "their user asked", "done")


def test_a_receipt_names_the_store_that_deletes_later(support: Client, redis_server: RedisServer) -> None:
    session = a_session()
    put(session, *ALIASES)
    redis_server.kill()
    try:
        posted = support.post(f"{LIST}conv_3A{session}/delete/", {"session": session, "reason": "asked"})
    finally:
        redis_server.start()
    receipt = posted.content.decode()
    assert "Redis deletes it then" in receipt
    assert "Deleted in</dt><dd>MongoDB" in receipt


def test_who_may_not_gets_nothing() -> None:
    session = a_session()
    put(session, REDIS, question="Secret?")
    nobody = person("nobody")
    for name in ("change", "export", "delete"):
        response = page(nobody, session, name)
        assert response.status_code == 403
        assert b"Secret?" not in response.content
    assert nobody.get(LIST).status_code == 403


def test_a_corrupt_value_is_shown_as_one(support: Client) -> None:
    session = a_session()
    put(session, REDIS)
    with environment.REDIS.client() as client:
        client.set(f"conv:{session}", b"nonsense", ex=60)
    assert "Redis: corrupt" in page(support, session).content.decode()


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "[x](javascript:alert(1))",
        "[x](data:text/html;base64,AAAA)",
        '<img src=x onerror="alert(1)">',
        "![x](http://tracker.example/x.png)",
        "<style>*{display:none}</style>",
        "[x]: javascript:alert(1)\n\n[x]",
        '<a href="x" onclick="alert(1)">x</a>',
    ],
)
def test_nothing_that_a_client_wrote_is_run_or_fetched(text: str) -> None:
    html = rendered(text).lower()
    assert not [
        bad for bad in ("<script", "<img", "<style", "<a onclick", 'href="javascript', 'href="data') if bad in html
    ]


def test_markdown_is_rendered() -> None:
    html = rendered("# Title\n\n- one\n- `two`\n\n```python\nprint('<b>')\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n")
    for part in ("<h1>Title</h1>", "<li>one</li>", "<code>two</code>", "&lt;b&gt;", "<td>1</td>"):
        assert part in html
    assert 'rel="noopener noreferrer nofollow"' in rendered("[x](https://example.org)")


def test_a_text_too_long_to_be_rendered_is_shown_as_it_is() -> None:
    html = rendered("**a** <b> " * 10_000)
    assert html.startswith("<pre>**a** &lt;b&gt;")


def hold_of(user: str, tenant: str = "") -> list[str]:
    """Give the stores conversations of the user; return their sessions, the newest first."""
    sessions = [f"{tenant}:{a_session()}" if tenant else a_session() for _ in range(2)]
    for session, alias in zip(sessions, ALIASES, strict=True):
        store(alias).append(session, a_turn(user=user))
    return sessions[::-1]


def of_user(client: Client, page: str, name: str, tenant: str = "", **posted: str) -> Any:
    address = f"{LIST}user-{page}/?{urlencode({'user': name, 'tenant': tenant})}"
    return client.post(address, posted) if posted else client.get(address)


def test_the_list_of_a_user_is_exact_and_leads_to_all_of_theirs(support: Client) -> None:
    user, tenant = f"{a_session()}@example.org", a_session()
    theirs, _ = hold_of(user, tenant), hold_of(f"{user}.au", tenant)
    response = support.get(LIST, {"user": user})
    assert listed(response) == [session.rpartition(":")[2] for session in theirs]
    text = html.unescape(response.content.decode())
    for page in ("export", "delete"):
        assert f"{LIST}user-{page}/?{urlencode({'user': user, 'tenant': tenant})}" in text
    assert "No conversation of the user" in support.get(LIST, {"user": f"{user}x"}).content.decode()
    assert "A user must be 1 to 128" in support.get(LIST, {"user": "a b"}).content.decode()
    shown = page_of(support, theirs[0])
    assert f"?{urlencode({'user': user})}" in shown


def page_of(client: Client, session: str) -> str:
    return str(page(client, session).content.decode())


def test_all_of_a_user_are_one_archive(support: Client) -> None:
    user = a_session()
    theirs = hold_of(user)
    response = of_user(support, "export", user)
    assert (response.status_code, response["Content-Type"]) == (200, "application/zip")
    with ZipFile(BytesIO(b"".join(response.streaming_content))) as archive:
        assert {f"{session}.json" for session in theirs} < set(archive.namelist())
    entry = AuditEntry.objects.order_by("id").last()
    assert (entry.action, entry.before["conversations"]) == ("user export", 2)
    assert user not in json.dumps([entry.before, entry.after, entry.outcome])


def test_deleting_all_of_a_user_needs_the_user_and_a_reason_and_gives_a_receipt(support: Client) -> None:
    user, tenant = a_session(), a_session()
    theirs, others = hold_of(user, tenant), hold_of(user)
    assert "<dd>2</dd>" in of_user(support, "delete", user, tenant).content.decode()
    for typed, reason in (("another", "asked for"), (user, "")):
        of_user(support, "delete", user, tenant, user=typed, reason=reason)
        assert history.read(theirs[0]).found
    text = of_user(support, "delete", user, tenant, user=user, reason="asked for").content.decode()
    assert "2 of 2 deleted" in text and "<dt>Tombstones in MongoDB</dt><dd>2</dd>" in text
    assert [history.read(session).found for session in [*theirs, *others]] == [False, False, True, True]
    entry = AuditEntry.objects.order_by("id").last()
    assert (entry.action, entry.reason, entry.outcome) == ("user delete", "asked for", "done")
    assert (entry.before["conversations"], entry.after["left"]) == (2, 0)
    assert entry.before["user"] in text
    assert user not in json.dumps([entry.before, entry.after])
    assert of_user(support, "delete", user, tenant).status_code == 404


def test_while_an_operators_command_runs_nothing_of_a_user_is_deleted(support: Client) -> None:
    """A restore could add a conversation behind the walk that looks for them."""
    user = a_session()
    theirs = hold_of(user)
    with lease.held("restore by alice@there, process 7"):
        response = of_user(support, "delete", user, user=user, reason="asked for")
    assert response.status_code == 409
    assert "is running: restore by alice@there, process 7" in response.content.decode()
    assert history.read(theirs[0]).found


def test_nothing_of_a_user_is_shown_to_who_may_not() -> None:
    user = a_session()
    hold_of(user)
    viewer = person("viewer")
    assert of_user(viewer, "export", user).status_code == 403
    viewer = person("viewer", "Viewers")
    for page in ("export", "delete"):
        assert of_user(viewer, page, user).status_code == 403


@pytest.mark.parametrize("page", ["export", "delete"])
def test_with_a_store_out_nothing_of_a_user_is_done(support: Client, redis_server: RedisServer, page: str) -> None:
    user = a_session()
    hold_of(user)
    redis_server.kill()
    try:
        response = of_user(support, page, user)
    finally:
        redis_server.start()
    assert response.status_code == 503
    assert "cannot be reached: redis" in response.content.decode()
    assert of_user(support, page, "no user").status_code == 404
