"""The status page in a browser: it renews itself, and never shows as fine what it could not ask for."""

from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from tests.browser.looking import open_in_admin, see, waiting
from tests.faults.service import Service
from tests.servers import RedisServer

COUNTING = """
window.sameDocument = true;
window.calls = 0;
window.pending = new Set();
const { fetch, setTimeout, clearTimeout } = window;
window.fetch = (...all) => { window.calls += 1; return fetch(...all); };
window.setTimeout = (call, ms) => {
  const id = setTimeout(() => { pending.delete(id); call(); }, ms);
  pending.add(id);
  return id;
};
window.clearTimeout = (id) => { pending.delete(id); clearTimeout(id); };
"""


@pytest.fixture(autouse=True)
def opened(service: Service, browser: Chrome) -> None:
    """The status page, which counts its requests and timers, as a page that was loaded anew would not."""
    open_in_admin(service, browser, "status/")
    see(browser, ".verdict h1")
    browser.execute_script(COUNTING)
    waiting(browser).until(lambda _: calls(browser))


def shown_at(browser: Chrome) -> str:
    return browser.find_element(By.CSS_SELECTOR, ".verdict time").text


def calls(browser: Chrome) -> int:
    found: int = browser.execute_script("return window.calls")
    return found


def wait(browser: Chrome, until: str) -> None:
    """Return once the expression holds in the page."""
    waiting(browser).until(lambda _: browser.execute_script(f"return {until}"))


@pytest.fixture
def redis_out(service: Service, redis_server: RedisServer) -> Iterator[None]:
    redis_server.kill()
    yield
    redis_server.start()
    service.wait()  # other modules use it too


def test_a_store_that_goes_out_is_shown_in_the_same_page(browser: Chrome, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("redis_out")
    see(browser, ".verdict.bad li", "redis is out")
    see(browser, ".badge.bad", "OUT (")
    assert see(browser, "[role=status]") == "Something is wrong"
    assert browser.execute_script("return window.sameDocument")


def test_focus_scroll_and_what_is_open_stay(browser: Chrome) -> None:
    browser.find_element(By.CSS_SELECTOR, "#status-charts summary").click()
    browser.execute_script("window.scrollTo(0, 120)")
    where, before = browser.execute_script("return window.scrollY"), shown_at(browser)
    waiting(browser).until(lambda _: shown_at(browser) != before)
    assert browser.execute_script("return [document.activeElement.tagName, window.scrollY]") == ["SUMMARY", where]
    assert browser.find_element(By.CSS_SELECTOR, "#status-charts details").get_attribute("open")


HIDDEN = "Object.defineProperty(document, 'hidden', {{value: {}, configurable: true}});" \
         "document.dispatchEvent(new Event('visibilitychange'));"  # fmt: skip


def test_it_asks_nothing_while_it_is_hidden_and_at_once_when_it_is_shown(browser: Chrome) -> None:
    browser.execute_script(HIDDEN.format("true"))
    wait(browser, "!asking")
    assert browser.execute_script("return window.pending.size") == 0
    before = calls(browser)
    browser.execute_script(HIDDEN.format("false"))
    wait(browser, f"window.calls > {before} && !asking && window.pending.size === 1")
    assert browser.find_elements(By.CSS_SELECTOR, ".stale") == []


def test_a_server_that_cannot_be_reached_is_never_shown_as_fine(browser: Chrome, service: Service) -> None:
    """Each figure says of when it is, until the server is back."""
    service.stop()
    try:
        alarm = see(browser, ".unreachable", "The server cannot be reached.")
        assert f"as of {shown_at(browser)} UTC" in alarm
        assert see(browser, "[role=status]") == "It is not known how things are now"
        marks = browser.find_elements(By.CSS_SELECTOR, ".figure .as-of")
        clock = shown_at(browser).split()[1]
        assert [mark.text for mark in marks] == [f"as of {clock} UTC"] * 4
        green = "rgb(46, 133, 64)"
        colours = "return [...document.querySelectorAll('.verdict, .figure, .badge')].map((each) => " \
                  "getComputedStyle(each).borderTopColor + getComputedStyle(each).borderLeftColor + " \
                  "getComputedStyle(each).backgroundColor)"  # fmt: skip
        assert not any(green in colour for colour in browser.execute_script(colours))
    finally:
        service.start()
        service.wait()
    waiting(browser).until(lambda _: not browser.find_elements(By.CSS_SELECTOR, ".stale"))
    assert not browser.find_element(By.CSS_SELECTOR, ".unreachable").is_displayed()
    assert browser.execute_script("return window.sameDocument")


def test_who_is_logged_out_meanwhile_is_told(browser: Chrome) -> None:
    browser.delete_all_cookies()
    see(browser, ".unreachable", "You are logged out: load this page again.")
