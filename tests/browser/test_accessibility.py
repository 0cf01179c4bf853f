"""What axe-core finds on the pages that operators look at: nothing, in light and dark, on a desk and on a phone."""

from collections.abc import Callable
from importlib.resources import files

import pytest
from selenium.webdriver import Chrome

from conversations.stores import ALIASES, MONGO, store
from tests.browser.looking import on_a_screen, open_in_admin, photograph, see
from tests.builders import a_session, a_turn
from tests.faults.service import Service

AXE = (files("axe_playwright_python") / "axe.min.js").read_text()
RUN = "const done = arguments[0]; axe.run(document).then((found) => done(found.violations), (error) => done([error]))"


def violations(browser: Chrome) -> list[str]:
    """Return what axe finds, each with the first elements that it is about."""
    browser.execute_script(AXE)
    found = browser.execute_async_script(RUN)
    return [f"{one['id']}: {[node['html'][:100] for node in one['nodes'][:3]]}" for one in found]


@pytest.fixture(scope="module")
def session(service: Service) -> str:
    """A conversation of which Redis is missing a turn, so that badges of all kinds are shown."""
    session = a_session()
    for alias in ALIASES:
        store(alias).append(session, a_turn("Is **this** read?", "```\ncode\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |"))
    store(MONGO).append(session, a_turn("And this?", "Yes."), flag=True)
    return session


def conversations(service: Service, browser: Chrome, session: str) -> None:
    open_in_admin(service, browser, "conversations/conversation/")
    see(browser, "#result_list")


def transcript(service: Service, browser: Chrome, session: str) -> None:
    open_in_admin(service, browser, f"conversations/conversation/conv_3A{session}/change/")
    see(browser, ".transcript")


def status(service: Service, browser: Chrome, session: str) -> None:
    open_in_admin(service, browser, "status/")
    see(browser, ".verdict h1")
    browser.execute_script("document.querySelector('details').open = true")


def status_bad(service: Service, browser: Chrome, session: str) -> None:
    """As while something is wrong, whatever the state of the stores is."""
    status(service, browser, session)
    browser.execute_script("document.querySelector('.verdict').className = 'verdict bad'")


def status_unreachable(service: Service, browser: Chrome, session: str) -> None:
    """As while the server cannot be reached, which the script finds out."""
    status(service, browser, session)
    browser.execute_script("window.fetch = () => Promise.reject(new TypeError()); renew()")
    see(browser, ".unreachable", "The server cannot be reached.")


def runbook(service: Service, browser: Chrome, session: str) -> None:
    open_in_admin(service, browser, "runbook/#alert-redisdown")
    see(browser, ".runbook")


def login(service: Service, browser: Chrome, session: str) -> None:
    browser.delete_all_cookies()
    browser.get(f"http://localhost:{service.port}/admin/login/")
    see(browser, "#login-form")


@pytest.mark.parametrize("page", [conversations, transcript, status, status_bad, status_unreachable, runbook, login])
@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(
    service: Service, browser: Chrome, session: str, page: Callable[..., None], width: int, scheme: str
) -> None:
    with on_a_screen(browser, width, scheme):
        page(service, browser, session)
        photograph(browser, f"{page.__name__}-{width}-{scheme}")
        assert violations(browser) == []
