"""The chat page in a real browser, on embedded stores that are stopped, frozen and killed meanwhile."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from selenium.webdriver import ActionChains, Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

import embedded
from tests import environment
from tests.browser.answering import GO_ON
from tests.browser.looking import hosts_asked, see, waiting
from tests.builders import make_token
from tests.configured import LONG_SECRET
from tests.faults.service import Service
from tests.servers import eventually, free_port

COMPLETE = 60  # seconds until both stores hold everything
LAST = ".turn:nth-last-child(1 of .turn)"


def serving(home: Path, **variables: str) -> Service:
    """Return a server with one worker whose answers can be held back."""
    # A busy machine must not make a store that is up look slow.
    patient = {"REDIS_SOCKET_TIMEOUT_MS": "1000", "REDIS_CONNECT_TIMEOUT_MS": "1000", "MONGO_TIMEOUT_MS": "2000"}
    variables = {"WEB_CONCURRENCY": "1", "CONV_DUAL_WRITE": "1", **patient, **variables}
    return Service(home, ANSWERER="tests.browser.answering.InPieces", **variables)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server with its own embedded stores."""
    home = tmp_path_factory.mktemp("chat")
    for name in ("redis", "mongo"):
        (home / f"{name}.port").write_text(str(free_port()))
    started = serving(home).start()
    started.wait()
    yield started
    started.stop()


@pytest.fixture(autouse=True)
def _answers_wait(service: Service) -> Iterator[None]:
    """Each test begins with slow answers held back, both stores up, and no conversation in the browser."""
    (service.home / GO_ON).unlink(missing_ok=True)
    try:
        eventually(lambda: service.follows("redis", True), "the stores are not complete", COMPLETE)
    except AssertionError:  # a page is tested here; what the test before has left must not fail it
        service.stop()
        service.start().wait()
        eventually(lambda: service.follows("redis", True), "the stores are not complete", COMPLETE)
    eventually(service.is_quiet, "a store is not used yet after the test before", COMPLETE)
    yield
    (service.home / GO_ON).touch()
    for name in ("redis", "mongo"):
        embedded.request(service.home, name, "start")
    service.wait()


@pytest.fixture
def chat(service: Service, browser: Chrome) -> Iterator[Chrome]:
    """The page, as a browser that has never been there sees it; no script of it may fail."""
    page = f"http://localhost:{service.port}/"
    browser.get(page)
    browser.execute_script("localStorage.clear()")
    hosts_asked(browser), browser.get_log("browser")
    browser.get(page)
    see(browser, "#stores [data-store=redis]", "up")
    yield browser
    severe = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    unexpected = [one for one in severe if "Failed to load resource" not in one]  # an answer of 404 or 503
    assert unexpected == []
    assert hosts_asked(browser) <= {f"localhost:{service.port}"}


def element(browser: Chrome, selector: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, selector)


def click(browser: Chrome, selector: str) -> None:
    element(browser, selector).click()


def ask(browser: Chrome, question: str) -> None:
    element(browser, "#question").send_keys(question, Keys.ENTER)


def answered(browser: Chrome, earlier: int, note: str) -> None:
    """Wait until the last turn is whole and stored, and was answered in the light of so many earlier questions."""
    see(browser, f"{LAST} .answer", f"After {earlier} questions:")
    see(browser, f"{LAST} .answer", "is only text")
    see(browser, f"{LAST} .note", note)


def stored(service: Service, browser: Chrome) -> list[str]:
    """Return the questions that the service has of the open conversation."""
    _, _, body = service.request("GET", f"/api/chat/conversations/{browser.current_url.partition('#')[2]}/")
    return [message["content"] for message in json.loads(body)["messages"][::2]]


@contextmanager
def another_tab(browser: Chrome) -> Iterator[None]:
    """Show the same address in a new tab until the end of the block."""
    address, tab = browser.current_url, browser.current_window_handle
    browser.switch_to.new_window("tab")
    try:
        browser.get(address)
        yield
    finally:
        browser.close()
        browser.switch_to.window(tab)


def break_both(browser: Chrome) -> None:
    """Stop both stores from the page; return when it shows them as out."""
    if not element(browser, "#breaking").is_displayed():
        click(browser, "#break-open")
    for name in ("redis", "mongo"):
        click(browser, f"#breaking [data-store={name}] [value=stop]")
        see(browser, f"#stores [data-store={name}]", "out")


def start_both(service: Service) -> None:
    for name in ("redis", "mongo"):
        embedded.request(service.home, name, "start")
    service.wait()


def requests_to(browser: Chrome, path: str) -> int:
    """Return how often the page has sent a request to this address since it was loaded."""
    sent = "performance.getEntriesByType('resource').filter((one) => one.name.endsWith(arguments[0]))"
    return int(browser.execute_script(f"return {sent}.length", path))


def tries(browser: Chrome) -> int:
    """Return how often it has sent a question."""
    return requests_to(browser, "/ask")


def unanswered(browser: Chrome) -> list[str]:
    """Return the questions that the browser keeps, oldest first."""
    found = browser.execute_script(
        "return Object.entries(localStorage).filter(([name]) => name.startsWith('onesource.question.'))"
    )
    noted = sorted((json.loads(value) for _, value in found), key=lambda one: one["at"])
    return [one["question"] for one in noted]


def kept(browser: Chrome) -> list[dict[str, Any]]:
    """Return what the browser has in its list."""
    found: list[dict[str, Any]] = json.loads(
        browser.execute_script("return localStorage.getItem('onesource.conversations') ?? '[]'")
    )
    return found


def test_redis_is_killed_in_the_middle_of_an_answer(service: Service, chat: Chrome) -> None:
    """The answer is stored all the same, in MongoDB; the conversation goes on, and none of it is missing anywhere."""
    ask(chat, "first")
    answered(chat, 0, "Redis answered · stored in Redis and MongoDB")
    ask(chat, "second, slowly")
    see(chat, f"{LAST} .answer", "After 1 questions: first.")
    with Redis.from_url(embedded.url(service.home, "redis")) as redis:
        os.kill(redis.info("server")["process_id"], signal.SIGKILL)
    (service.home / GO_ON).touch()
    answered(chat, 1, "MongoDB")
    ask(chat, "third")
    answered(chat, 2, "MongoDB")
    service.wait()  # Redis was started again by itself
    ask(chat, "fourth")
    answered(chat, 3, "answered")
    assert not chat.find_elements(By.CSS_SELECTOR, "[data-kind=behind], [data-kind=failed]")
    assert stored(service, chat) == ["first", "second, slowly", "third", "fourth"]


@pytest.mark.parametrize("verb", ["stop", "freeze"])
def test_a_store_is_broken_and_started_from_the_page(service: Service, chat: Chrome, verb: str) -> None:
    ask(chat, "first")
    answered(chat, 0, "stored in Redis and MongoDB")
    ask(chat, "second, slowly")
    see(chat, f"{LAST} .answer", "After 1 questions")
    click(chat, "#break-open")
    click(chat, f"#breaking [data-store=redis] [value={verb}]")
    see(chat, "#outage", "Redis is out. MongoDB answers and stores")
    (service.home / GO_ON).touch()
    answered(chat, 1, "stored in MongoDB")
    ask(chat, "third")
    answered(chat, 2, "MongoDB answered · stored in MongoDB")
    click(chat, "#breaking [data-store=redis] [value=start]")
    see(chat, "#stores [data-store=redis]", "up")
    waiting(chat).until(lambda _: not element(chat, "#outage").is_displayed())
    service.wait()
    waiting(chat).until(lambda _: service.uses_both())
    ask(chat, "fourth")
    answered(chat, 3, "stored in")
    assert stored(service, chat) == ["first", "second, slowly", "third", "fourth"]


def test_a_question_waits_while_both_stores_are_out(service: Service, chat: Chrome) -> None:
    ask(chat, "first")
    answered(chat, 0, "stored in")
    break_both(chat)
    ask(chat, "second")
    see(chat, f"{LAST} .note", "Asking again with the same key")
    for name in ("redis", "mongo"):
        click(chat, f"#breaking [data-store={name}] [value=start]")
    answered(chat, 1, "stored in")
    assert stored(service, chat) == ["first", "second"]


ONCE = """
const fetch = window.fetch, [status, body, headers] = arguments;
window.fetch = (...all) => {
  window.fetch = fetch;
  return Promise.resolve(new Response(JSON.stringify(body), { status, headers }));
};
"""


def test_a_question_waits_while_its_token_cannot_be_checked(service: Service, chat: Chrome) -> None:
    """As while the issuer of the token is out, which the service answers here once."""
    chat.execute_script(ONCE, 503, {"code": "issuer_unavailable", "detail": "its issuer's keys"}, {"Retry-After": "1"})
    ask(chat, "first")
    see(chat, f"{LAST} .note", "Your token cannot be checked at the moment. Asking again with the same key")
    answered(chat, 0, "stored in")
    assert stored(service, chat) == ["first"]


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (413, "tenant_full", "Delete some: a few minutes later there is room again."),
        (429, "throttled", "These are more questions than you may ask in this time. Wait 32 s."),
        (429, "too_many_asks", "Too many of your questions are being answered at once. Wait 32 s."),
    ],
)
def test_a_limit_is_explained_and_left_to_the_visitor(chat: Chrome, status: int, code: str, words: str) -> None:
    chat.execute_script(ONCE, status, {"code": code, "detail": "CHAT_RATE"}, {"Retry-After": "32"})
    ask(chat, "first")
    see(chat, f"{LAST} .note", words)
    click(chat, f"{LAST} [data-do=again]")
    answered(chat, 0, "stored in")


def test_a_failed_question_is_not_asked_again_by_itself(chat: Chrome) -> None:
    """It is shown as failed, through a reload too, until the visitor tries again or discards it."""
    ask(chat, "first, failing")
    see(chat, f"{LAST} .note", "The model gave no answer; nothing was stored.")
    chat.refresh()
    see(chat, f"{LAST} .note", "The model gave no answer; nothing was stored.")
    ask(chat, "second")
    answered(chat, 0, "stored in")
    assert tries(chat) == 1
    assert unanswered(chat) == ["first, failing"]
    click(chat, "[data-kind=failed] [data-do=again]")
    waiting(chat).until(lambda _: tries(chat) == 2)
    see(chat, "[data-kind=failed] .note", "The model gave no answer; nothing was stored.")
    click(chat, "[data-kind=failed] [data-do=discard]")
    assert unanswered(chat) == []


def test_a_question_whose_key_is_used_up_is_asked_with_a_new_one(service: Service, chat: Chrome) -> None:
    """Its turn was deleted, so that the service refuses its key for good."""
    ask(chat, "first")
    answered(chat, 0, "stored in")
    session = chat.current_url.partition("#")[2]
    ask(chat, "second, slowly")
    see(chat, f"{LAST} .answer", "After 1 questions")
    key = chat.execute_script("return Object.keys(localStorage).find((name) => name.startsWith('onesource.question.'))")
    noted = chat.execute_script("return localStorage.getItem(arguments[0])", key)
    (service.home / GO_ON).touch()
    answered(chat, 1, "stored in")
    service.request("DELETE", f"/api/chat/conversations/{session}/")
    chat.execute_script("localStorage.setItem(...arguments)", key, noted)
    chat.refresh()
    see(chat, f"{LAST} .note", "Ask with a new key.")
    click(chat, f"{LAST} [data-do=again]")
    answered(chat, 0, "stored in")
    assert (stored(service, chat), unanswered(chat)) == (["second, slowly"], [])


def test_a_question_is_asked_however_often_it_failed(service: Service, chat: Chrome) -> None:
    break_both(chat)
    chat.execute_script("const set = setTimeout; window.setTimeout = (call, ms, ...more) => set(call, 10, ...more)")
    ask(chat, "first")
    waiting(chat).until(lambda _: tries(chat) > 12)
    see(chat, f"{LAST} .note", "Asking again with the same key")
    start_both(service)
    answered(chat, 0, "stored in")
    assert stored(service, chat) == ["first"]


def test_a_question_is_asked_as_soon_as_a_store_is_back(service: Service, chat: Chrome) -> None:
    """Its next try by time would be never."""
    break_both(chat)
    chat.execute_script(
        "const set = setTimeout;"
        "window.setTimeout = (call, ms, ...more) => set(call, more[0] === 'time' ? 1e9 : ms, ...more)"
    )
    ask(chat, "first")
    see(chat, f"{LAST} .note", "Asking again with the same key")
    start_both(service)
    answered(chat, 0, "stored in")


def test_a_reload_in_the_middle_of_an_answer(service: Service, chat: Chrome) -> None:
    """The page asks again with the same key: the answer is the one that was stored, once."""
    ask(chat, "first, slowly")
    see(chat, f"{LAST} .answer", "After 0 questions")
    chat.refresh()
    see(chat, f"{LAST} .question", "first, slowly")
    (service.home / GO_ON).touch()
    answered(chat, 0, "stored before, shown again")
    assert stored(service, chat) == ["first, slowly"]
    chat.refresh()
    see(chat, f"{LAST} .answer", "is only text")
    ask(chat, "second")
    answered(chat, 1, "stored in")
    assert len(chat.find_elements(By.CSS_SELECTOR, ".turn")) == 2


def test_a_stopped_answer_is_stored_and_can_be_shown(service: Service, chat: Chrome) -> None:
    ask(chat, "first, slowly")
    see(chat, f"{LAST} .answer", "After 0 questions")
    click(chat, "#stop")
    see(chat, f"{LAST} .note", "Stopped.")
    (service.home / GO_ON).touch()
    see(chat, f"{LAST} .note", "Stopped. The answer is stored.")
    click(chat, f"{LAST} [data-do=again]")
    answered(chat, 0, "stored in")
    assert stored(service, chat) == ["first, slowly"]
    assert unanswered(chat) == []


def test_an_answer_without_a_stopped_question_is_marked(service: Service, chat: Chrome) -> None:
    ask(chat, "first, slowly")
    see(chat, f"{LAST} .answer", "After 0 questions")
    click(chat, "#stop")
    see(chat, f"{LAST} .note", "Stopped. The service finishes the answer")
    ask(chat, "second")
    answered(chat, 0, "Answered without the stopped question, which was not stored yet. ")
    assert element(chat, LAST).get_attribute("data-kind") == "behind"
    (service.home / GO_ON).touch()
    see(chat, ".turn .note", "Stopped. The answer is stored.")
    ask(chat, "third")
    answered(chat, 2, "answered")
    assert element(chat, LAST).get_attribute("data-kind") == "quiet"


def test_questions_stopped_in_an_outage_are_kept(service: Service, chat: Chrome) -> None:
    """Nothing is in flight: each is kept, through a reload too, until the visitor tries again or discards it."""
    break_both(chat)
    for question in ("first", "second", "third"):
        ask(chat, question)
        see(chat, f"{LAST} .note", "Asking again with the same key")
        click(chat, "#stop")
        see(chat, f"{LAST} .note", "Stopped. The question is kept in this browser")
    assert unanswered(chat) == ["first", "second", "third"]
    start_both(service)
    chat.refresh()
    see(chat, f"{LAST} .question", "third")
    assert [one.text for one in chat.find_elements(By.CSS_SELECTOR, ".turn .question")] == ["first", "second", "third"]
    assert len(chat.find_elements(By.CSS_SELECTOR, "[data-kind=stopped]")) == 3
    click(chat, f"{LAST} [data-do=discard]")
    assert element(chat, "#question").get_attribute("value") == "third"
    assert unanswered(chat) == ["first", "second"]
    for place in (1, 2):
        click(chat, f".turn:nth-child({place} of .turn) [data-do=again]")
        see(chat, f".turn:nth-child({place} of .turn) .note", "stored in")
    assert stored(service, chat) == ["first", "second"]
    assert unanswered(chat) == []


def test_two_tabs_keep_a_question_each(service: Service, chat: Chrome) -> None:
    ask(chat, "first")
    answered(chat, 0, "stored in")
    ask(chat, "second, slowly")
    see(chat, f"{LAST} .answer", "After 1 questions")
    with another_tab(chat):
        see(chat, f"{LAST} .question", "second, slowly")
        click(chat, "#stop")  # it waits for the first tab, which asks with the same key
        see(chat, f"{LAST} .note", "Stopped.")
        ask(chat, "third, slowly")
        see(chat, f"{LAST} .answer", "After 1 questions")
        assert unanswered(chat) == ["second, slowly", "third, slowly"]
        (service.home / GO_ON).touch()
        answered(chat, 1, "stored in")
    answered(chat, 1, "stored in")
    assert sorted(stored(service, chat)) == ["first", "second, slowly", "third, slowly"]
    assert unanswered(chat) == []


def test_a_question_discarded_in_another_tab_is_not_asked(service: Service, chat: Chrome) -> None:
    ask(chat, "first")
    answered(chat, 0, "stored in")
    break_both(chat)
    ask(chat, "second")
    see(chat, f"{LAST} .note", "Asking again with the same key")
    with another_tab(chat):
        see(chat, f"{LAST} .note", "Asking again with the same key")
        click(chat, "#stop")
        click(chat, f"{LAST} [data-do=discard]")
    see(chat, f"{LAST} .question", "first")
    assert not element(chat, "#stop").is_displayed()
    start_both(service)
    ask(chat, "third")
    answered(chat, 1, "stored in")
    assert stored(service, chat) == ["first", "third"]


def test_a_conversation_is_read_again_when_a_store_is_back(service: Service, chat: Chrome) -> None:
    ask(chat, "first")
    answered(chat, 0, "stored in")
    break_both(chat)
    chat.refresh()
    see(chat, ".line", "cannot be reached now; nothing was changed.")
    start_both(service)
    see(chat, f"{LAST} .question", "first")


def test_a_question_in_the_middle_of_an_answer_is_asked_after_it(service: Service, chat: Chrome) -> None:
    ask(chat, "first, slowly")
    see(chat, f"{LAST} .answer", "After 0 questions")
    ask(chat, "second")
    see(chat, f"{LAST} .note", "Asked after the question before it.")
    (service.home / GO_ON).touch()
    answered(chat, 1, "stored in")


def test_a_conversation_deleted_in_another_tab_stays_away(service: Service, chat: Chrome) -> None:
    """Also the turn that was being answered meanwhile, which the service stores after the deletion."""
    ask(chat, "about apples")
    answered(chat, 0, "stored in")
    address = chat.current_url
    ask(chat, "second, slowly")
    see(chat, f"{LAST} .answer", "After 1 questions")
    with another_tab(chat):
        see(chat, f"{LAST} .question", "second, slowly")
        click(chat, "#stop")
        see(chat, f"{LAST} .note", "Stopped. The question is kept in this browser")
        click(chat, "#menu summary")
        click(chat, "#delete")
        click(chat, "#delete-dialog [type=submit]")
        see(chat, "#title", "New conversation")
    see(chat, ".line", "deleted in another tab")
    (service.home / GO_ON).touch()
    path = f"/api/chat/conversations/{address.partition('#')[2]}/"
    waiting(chat).until(lambda _: requests_to(chat, path) == 1)
    eventually(lambda: service.request("GET", path)[0] == 404, "the last turn is still there")
    assert (kept(chat), unanswered(chat), chat.find_elements(By.CSS_SELECTOR, "#list a")) == ([], [], [])


def test_what_a_model_writes_is_shown_and_never_run(chat: Chrome) -> None:
    ask(chat, "<b>first</b>")
    answered(chat, 0, "stored in")
    answer = element(chat, f"{LAST} .answer")
    found = {name: [one.text for one in answer.find_elements(By.CSS_SELECTOR, name)] for name in ("strong", "em", "a")}
    assert found == {"strong": ["bold"], "em": ["italic"], "a": ["a page"]}
    assert element(chat, f"{LAST} .answer a").get_attribute("href") == "https://example.org/here"
    assert [one.text for one in answer.find_elements(By.CSS_SELECTOR, "p > code")] == ["print(1)"]
    assert element(chat, f"{LAST} pre").text == 'kept = "<b>as it is</b>"'
    assert element(chat, f"{LAST} .question").text == "<b>first</b>"
    assert not answer.find_elements(By.CSS_SELECTOR, "img, script, b")
    assert "run" not in chat.title


def test_conversations_are_begun_renamed_and_deleted(service: Service, chat: Chrome) -> None:
    for question in ("about apples", "about pears"):
        ask(chat, question)
        answered(chat, 0, "stored in")
        click(chat, "#new")
    assert [one.text for one in chat.find_elements(By.CSS_SELECTOR, "#list a")] == ["about pears", "about apples"]
    click(chat, "#list li:last-child a")
    see(chat, f"{LAST} .question", "about apples")
    click(chat, "#menu summary")
    click(chat, "#rename")
    element(chat, "#rename-title").clear()
    element(chat, "#rename-title").send_keys("Fruit", Keys.ENTER)
    see(chat, "#title", "Fruit")
    assert chat.title == "Fruit · onesource"
    session = chat.current_url.partition("#")[2]
    click(chat, "#menu summary")
    click(chat, "#delete")
    click(chat, "#delete-dialog [type=submit]")
    see(chat, "#title", "New conversation")
    assert [one["title"] for one in kept(chat)] == ["about pears"]
    assert service.request("GET", f"/api/chat/conversations/{session}/")[0] == 404


def test_a_title_of_blanks_changes_nothing(chat: Chrome) -> None:
    ask(chat, "about apples")
    answered(chat, 0, "stored in")
    click(chat, "#menu summary")
    click(chat, "#rename")
    element(chat, "#rename-title").clear()
    element(chat, "#rename-title").send_keys("   ", Keys.ENTER)
    see(chat, "#title", "about apples")
    assert [one["title"] for one in kept(chat)] == ["about apples"]


def test_copy_has_its_name_again_after_two_clicks(chat: Chrome) -> None:
    chat.execute_script("navigator.clipboard.writeText = async () => {}")
    ask(chat, "first")
    answered(chat, 0, "stored in")
    copy = element(chat, f"{LAST} [data-do=copy]")
    copy.click()
    see(chat, f"{LAST} [data-do=copy]", "Copied")
    copy.click()
    waiting(chat).until(lambda _: copy.text == "Copy")


def test_a_conversation_is_exported(chat: Chrome, tmp_path: Path) -> None:
    chat.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    ask(chat, "first")
    answered(chat, 0, "stored in")
    session = chat.current_url.partition("#")[2]
    for kind, ending in (("markdown", "md"), ("json", "json")):
        click(chat, "#menu summary")
        click(chat, f"[data-export={kind}]")
        waiting(chat).until(lambda _, ending=ending: (tmp_path / f"{session}.{ending}").exists())
    assert "first" in (tmp_path / f"{session}.md").read_text()


def test_the_last_message_and_a_key_go_with_each_question(chat: Chrome) -> None:
    ask(chat, "first")
    answered(chat, 0, "stored in")
    (conversation,) = kept(chat)
    chat.get_log("performance")
    ask(chat, "second")
    answered(chat, 1, "stored in")
    sent = [json.loads(entry["message"])["message"] for entry in chat.get_log("performance")]
    (asked,) = [
        one["params"]["request"]
        for one in sent
        if one["method"] == "Network.requestWillBeSent" and one["params"]["request"]["url"].endswith("/ask")
    ]
    assert json.loads(asked["postData"])["last_message_id"] == conversation["last_message_id"]
    assert len(asked["headers"]["Idempotency-Key"]) == 32


def test_the_keyboard_is_enough(chat: Chrome) -> None:
    """Enter sends, Shift and Enter begin a line, Tab goes from what is first to what is last with a visible focus."""
    assert chat.switch_to.active_element.get_attribute("id") == "question"
    chat.switch_to.active_element.send_keys("one", Keys.SHIFT + Keys.ENTER, Keys.NULL, "two", Keys.ENTER)
    answered(chat, 0, "stored in")
    assert element(chat, f"{LAST} .question").text == "one\ntwo"
    chat.execute_script("document.activeElement.blur(); window.getSelection().removeAllRanges()")
    chat.refresh()
    see(chat, f"{LAST} .answer", "is only text")
    chat.execute_script("document.querySelector('.skip').focus()")
    order = []
    while "send" not in order:
        ActionChains(chat).send_keys(Keys.TAB).perform()
        focused = chat.switch_to.active_element
        order.append(focused.get_attribute("id") or focused.get_attribute("class") or focused.tag_name)
        assert focused.value_of_css_property("outline-style") != "none", order
    assert order.index("new") < order.index("break-open") < order.index("question")


@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_is_wider_than_the_window(chat: Chrome, width: int) -> None:
    chat.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": False}
    )
    try:
        ask(chat, "w" * 300)
        answered(chat, 0, "stored in")
        assert chat.execute_script("return document.documentElement.scrollWidth") == width
        assert element(chat, "#side").is_displayed() == (width == 1440)
        if width == 390:
            click(chat, "#side-open")
            see(chat, "#list a", "www")
    finally:
        chat.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_token_is_asked_for_and_kept_in_the_tab(browser: Chrome, tmp_path: Path, _servers: None) -> None:
    stores = {"REDIS_URL": environment.REDIS.url, "MONGO_URL": environment.MONGO.url}
    service = serving(tmp_path, CHAT_AUTH="token", SECRET_KEY=LONG_SECRET, **stores).start()
    try:
        service.wait()
        browser.get(f"http://localhost:{service.port}/")
        see(browser, "#token-dialog")
        assert not browser.find_elements(By.ID, "breaking")
        element(browser, "#token").send_keys("wrong", Keys.ENTER)
        see(browser, "#token-problem", "not one of ours")
        element(browser, "#token").send_keys(make_token("tester"), Keys.ENTER)
        waiting(browser).until(lambda _: not element(browser, "#token-dialog").is_displayed())
        ask(browser, "first")
        answered(browser, 0, "stored in")
        browser.refresh()
        see(browser, f"{LAST} .answer", "is only text")
        assert browser.execute_script("return Object.keys(localStorage).join()") == "onesource.conversations"
        reader = make_token("reader", scopes=("read",))
        browser.execute_script("sessionStorage.setItem('onesource.token', arguments[0])", reader)
        ask(browser, "second")
        see(browser, f"{LAST} .note", "Your token does not allow this.")
    finally:
        service.stop()
