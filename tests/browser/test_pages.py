"""What people look at, in a real browser: the documentation and the admin, with nothing fetched from elsewhere."""

import http.client
import json

import pytest
from django.contrib.admin.utils import quote
from django.db import connections
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from conversations.stores import ALIASES, MONGO, store
from tests.browser.looking import follow, hosts_asked, on_a_screen, open_in_admin, photograph, see
from tests.builders import a_session, a_turn
from tests.faults.service import Service


def ask(service: Service, question: str, session: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
    body = json.dumps({"question": question, "session_id": session})
    connection.request("POST", "/api/chat/ask", body, {"Content-Type": "application/json"})
    assert connection.getresponse().status == 200
    connection.close()


def test_the_documentation_needs_no_other_host(service: Service, browser: Chrome) -> None:
    hosts_asked(browser), browser.get_log("browser")  # what an earlier page left
    browser.get(f"http://localhost:{service.port}/api/docs/")
    see(browser, ".opblock-summary-path", "/api/chat/ask")
    assert hosts_asked(browser) == {f"localhost:{service.port}"}
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert severe == []


def test_a_conversation_is_found_by_its_session_and_read_as_a_transcript(service: Service, browser: Chrome) -> None:
    """Escaped: what a client said is shown, never run."""
    name = a_session()
    session = f"{name}-1"
    ask(service, "Is <script>document.title='run'</script> shown?", session)
    ask(service, "What did I just ask about?", session)
    ask(service, "Is this another one?", f"{name}-2")
    # A page of all conversations may have only those of the tests before.
    open_in_admin(service, browser, f"conversations/conversation/?q={name}")
    see(browser, "#result_list", session)
    photograph(browser, "list")
    browser.find_element(By.NAME, "q").clear()
    browser.find_element(By.NAME, "q").send_keys(session)
    follow(browser, By.CSS_SELECTOR, "#changelist-search [type=submit]")
    assert "Is <script>document.title='run'</script> shown?" in see(browser, ".transcript .user")
    assert "You just asked:" in see(browser, ".transcript .assistant", "You just asked:")
    assert "Redis: 4 messages" in see(browser, ".facts")
    assert browser.title != "run"
    photograph(browser, "transcript")


def test_a_conversation_is_deleted_with_its_name_and_a_reason(service: Service, browser: Chrome) -> None:
    session = a_session()
    ask(service, "What is to go?", session)
    open_in_admin(service, browser, f"conversations/conversation/conv_3A{session}/change/")
    follow(browser, By.PARTIAL_LINK_TEXT, "Delete")
    browser.find_element(By.NAME, "session").send_keys("another")
    browser.find_element(By.NAME, "reason").send_keys("Its user asked for it")
    follow(browser, By.CSS_SELECTOR, "[value='Delete for good']")
    assert "Nothing was deleted" in see(browser, ".errorlist")
    browser.find_element(By.NAME, "session").clear()
    browser.find_element(By.NAME, "session").send_keys(session)
    photograph(browser, "delete")
    follow(browser, By.CSS_SELECTOR, "[value='Delete for good']")
    assert "2 deleted" in see(browser, ".receipt")
    photograph(browser, "receipt")
    browser.get(f"http://localhost:{service.port}/admin/conversations/conversation/conv_3A{session}/change/")
    assert "deleted" in see(browser, ".facts")
    assert "It has no messages" in see(browser, ".transcript")


def test_the_status_is_found_and_shown(service: Service, browser: Chrome) -> None:
    hosts_asked(browser), browser.get_log("browser")
    open_in_admin(service, browser, "")
    follow(browser, By.CSS_SELECTOR, ".model-status a")
    see(browser, ".verdict h1")
    assert see(browser, ".badge.ok") == "up"
    assert "primary redis, dual write off" in see(browser, ".tables", "traffic")
    photograph(browser, "status")
    assert hosts_asked(browser) == {f"localhost:{service.port}"}
    severe = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert [message for message in severe if "/favicon.ico" not in message] == []  # browsers ask for one unbidden


ADMIN_PAGES = ["", "auth/user/", "auth/user/add/", "auth/user/1/change/", "auth/user/1/password/",
               "auth/user/1/delete/", "auth/user/1/history/", "auth/group/add/", "ops/auditentry/", "password_change/",
               "conversations/conversation/", "conversations/corruptconversation/", "actions/",
               "actions/dual-write/on/"]  # fmt: skip


def test_the_policy_stops_nothing_that_a_page_of_the_admin_needs(service: Service, browser: Chrome) -> None:
    open_in_admin(service, browser, "")
    browser.get_log("browser")
    for path in ADMIN_PAGES:
        browser.get(f"http://localhost:{service.port}/admin/{path}")
        see(browser, "#content")
    severe = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert [message for message in severe if "/favicon.ico" not in message] == []


@pytest.fixture(scope="module")
def long_names(service: Service) -> str:
    """Return the address of a conversation with the longest names that there can be, whose messages have long words.
    MongoDB has a turn of it that Redis does not have, and a corrupt one with a name as long is quarantined."""
    session, corrupt = (f"{'t' * 128}:{'s' * 91}{a_session()}" for _ in range(2))
    turn = a_turn("`" + "long" * 40 + "`", "word" * 40)
    for alias in ALIASES:
        store(alias).append(session, turn)
    store(MONGO).append(session, a_turn("q" * 150, "a" * 150), flag=True)
    store(MONGO).append(corrupt, None, flag=True)
    documents = connections["mongo"].get_collection("conversations_conversation")
    documents.update_one({"_id": f"conv:{corrupt}"}, {"$set": {"messages": "no history"}})
    store(MONGO).quarantine(corrupt)
    return f"conversations/conversation/{quote(f'conv:{session}')}/"


LONG_PAGES = ["status/", "actions/", "actions/dual-write/on/", "conversations/conversation/",
              "conversations/conversation/?q=" + "none" * 32,
              "conversations/conversation/" + quote(f"conv:{'u' * 128}:{'v' * 128}") + "/change/",
              "conversations/corruptconversation/", "ops/auditentry/", "{}change/", "{}delete/"]  # fmt: skip


@pytest.mark.parametrize("page", LONG_PAGES)
@pytest.mark.parametrize("width", [390, 1440])
def test_pages_are_no_wider_than_the_window(
    service: Service, browser: Chrome, long_names: str, page: str, width: int
) -> None:
    with on_a_screen(browser, width):
        open_in_admin(service, browser, page.format(long_names))
        see(browser, "#content-main")
        photograph(browser, f"{page}-{width}")
        assert browser.execute_script("return document.documentElement.scrollWidth") == width
