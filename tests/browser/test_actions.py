"""The actions of the console in a real browser, on a server and stores of their own: planned, agreed to, watched."""

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from tests.browser.looking import follow, hosts_asked, see, waiting
from tests.builders import a_session
from tests.faults.service import ROOT, Service
from tests.servers import MongoServer, RedisServer, eventually

RUNNING = 90  # seconds: a process starts, and a failover waits twice until every process has followed
OPERATOR, OTHER = "op", "other"
PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A server with two workers, an operator who may do all and another who may do nothing."""
    home = tmp_path_factory.mktemp("actions")
    stores = RedisServer(home / "redis").start(), MongoServer(home / "mongo").start()
    patient = {"REDIS_SOCKET_TIMEOUT_MS": "1000", "REDIS_CONNECT_TIMEOUT_MS": "1000", "MONGO_TIMEOUT_MS": "2000"}
    started = Service(home / "server", REDIS_URL=stores[0].url, MONGO_URL=stores[1].url, ANSWERER="recall",
                      WEB_CONCURRENCY="2", **patient).start()  # fmt: skip
    started.wait()
    make_users(started)
    yield started
    started.stop()
    for store in stores:
        store.kill()


def make_users(service: Service) -> None:
    lines = (
        "from django.contrib.auth.models import User",
        f"User.objects.create_superuser({OPERATOR!r}, password={PASSWORD!r})",
        f"User.objects.create_user({OTHER!r}, password={PASSWORD!r}, is_staff=True)",
    )
    subprocess.run([sys.executable, "manage.py", "shell", "-c", "\n".join(lines)], env=service.environment, cwd=ROOT,
                   check=True, capture_output=True)  # fmt: skip


def ask(service: Service, session: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=10)
    body = json.dumps({"question": "What is kept?", "session_id": session})
    connection.request("POST", "/api/chat/ask", body, {"Content-Type": "application/json"})
    assert connection.getresponse().status == 200
    connection.close()


def open_as(user: str, service: Service, browser: Chrome, path: str) -> None:
    browser.delete_all_cookies()
    browser.get(f"http://localhost:{service.port}/admin/login/?next=/admin/{path}")
    browser.find_element(By.NAME, "username").send_keys(user)
    browser.find_element(By.NAME, "password").send_keys(PASSWORD)
    follow(browser, By.CSS_SELECTOR, "[type=submit]")


def plan(service: Service, browser: Chrome, action: str, to: str = "") -> None:
    """Plan an action; return when its page asks for the yes, or says why it does not."""
    browser.get(f"http://localhost:{service.port}/admin/actions/")
    if to:
        browser.find_element(By.CSS_SELECTOR, f"#{action} [name=to][value={to}]").click()
    follow(browser, By.CSS_SELECTOR, f"#{action} [type=submit]")
    until(browser, "document.querySelector('.agree, .note:not(.warn)')")


def agree(browser: Chrome, word: str, reason: str) -> None:
    for name, value in (("word", word), ("reason", reason)):
        field = browser.find_element(By.NAME, name)
        field.clear()
        field.send_keys(value)
    follow(browser, By.CSS_SELECTOR, ".agree [type=submit]")


def until(browser: Chrome, true: str) -> None:
    """Return when the page says so, which loads itself anew meanwhile."""
    waiting(browser, RUNNING).until(lambda _: browser.execute_script(f"return Boolean({true})"))


def shown(browser: Chrome, selector: str, words: str) -> None:
    """Return when an element says so. The page is asked in one call: its script replaces what it shows meanwhile."""
    until(browser, f"[...document.querySelectorAll({selector!r})].some((each) => each.innerText.includes({words!r}))")


def until_ended(browser: Chrome, state: str = "done") -> None:
    until(browser, f"document.querySelector('#run')?.dataset.state === {state!r}")


def test_a_failover_is_planned_agreed_to_watched_and_audited_and_goes_back(
    service: Service, browser: Chrome, tmp_path: Path
) -> None:
    hosts_asked(browser), browser.get_log("browser")
    ask(service, a_session())  # in Redis alone, whatever the tests before have copied
    open_as(OPERATOR, service, browser, "actions/")
    plan(service, browser, "failover")
    shown(browser, ".lines", "conversations to mongo")
    browser.save_screenshot(str(tmp_path / "plan.png"))
    agree(browser, "redis", "Redis is to be moved")
    assert "Nothing was changed" in see(browser, ".errorlist")
    agree(browser, "mongo", "Redis is to be moved")
    shown(browser, ".headline", "running")
    shown(browser, ".lines", "precheck")
    browser.refresh()
    shown(browser, ".lines", "precheck")
    browser.save_screenshot(str(tmp_path / "running.png"))
    until_ended(browser)
    shown(browser, ".lines", "primary mongo, dual write off")
    browser.save_screenshot(str(tmp_path / "done.png"))
    eventually(lambda: service.follows("mongo", False), "not every process follows")
    browser.get(f"http://localhost:{service.port}/admin/ops/auditentry/")
    newest = see(browser, "#result_list tbody tr", "failover")
    assert "op in the admin" in newest and "Redis is to be moved" in newest and "done" in newest
    plan(service, browser, "failback")
    agree(browser, "redis", "Redis is back")
    until_ended(browser)
    eventually(lambda: service.follows("redis", False), "not every process follows")
    assert hosts_asked(browser) == {f"localhost:{service.port}"}
    severe = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert [message for message in severe if "/favicon.ico" not in message] == []


def test_without_a_permission_it_is_403(service: Service, browser: Chrome) -> None:
    open_as(OTHER, service, browser, "actions/")
    assert "You may not do this." in see(browser, "#content-main")


@pytest.mark.parametrize("width", [390, 1440])
def test_no_page_is_wider_than_the_window(service: Service, browser: Chrome, width: int, tmp_path: Path) -> None:
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        open_as(OPERATOR, service, browser, "actions/")
        plan(service, browser, "failover")
        for name in ("plan", "index"):
            for scheme in ("light", "dark"):
                look = [{"name": "prefers-color-scheme", "value": scheme}]
                browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": look})
                browser.save_screenshot(str(tmp_path / f"{name}-{width}-{scheme}.png"))
            assert browser.execute_script("return document.documentElement.scrollWidth") == width
            browser.get(f"http://localhost:{service.port}/admin/actions/")
            see(browser, ".cards")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_the_run_of_a_killed_server_is_interrupted_and_the_next_one_does_it(service: Service, browser: Chrome) -> None:
    open_as(OPERATOR, service, browser, "actions/")
    plan(service, browser, "failover")
    agree(browser, "mongo", "a test")
    shown(browser, ".lines", "precheck")
    address = browser.current_url
    service.kill()
    service.start().wait()
    browser.get(address)
    until_ended(browser, "interrupted")
    shown(browser, ".note.warn", "Plan it again")
    plan(service, browser, "failover", to="mongo")  # which may be the primary by now
    agree(browser, "mongo", "again")
    until_ended(browser)
    eventually(lambda: service.follows("mongo", False), "dual write is not as it was", 60)
    plan(service, browser, "failback")
    agree(browser, "redis", "back")
    until_ended(browser)
