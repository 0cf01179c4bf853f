"""All conversations of a user in the admin: filtered, exported, and deleted with one receipt, in a real browser."""

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from conversations.stores import ALIASES, bulk, store
from tests.browser.looking import follow, on_a_screen, open_in_admin, photograph, see
from tests.browser.test_accessibility import violations
from tests.builders import a_session, a_turn
from tests.faults.service import Service

CONVERSATIONS = "conversations/conversation/"
# Colours change by and by; one of between has less contrast.
FINISHED = """
    const done = arguments[0];
    requestAnimationFrame(() => Promise.allSettled(document.getAnimations().map((one) => one.finished)).then(done));
"""


def hold(user: str, tenant: str) -> list[str]:
    """Give the stores three conversations of the user, and one of somebody else; return those of the user."""
    sessions = [f"{tenant}:{a_session()}" for _ in range(3)]
    for number, session in enumerate(sessions):
        store(ALIASES[number % 2]).append(session, a_turn("What is Redis?", "A store.", user=user))
    store(ALIASES[0]).append(f"{tenant}:{a_session()}", a_turn(user="somebody.else"))
    return sessions


def photograph_all(browser: Chrome, name: str) -> None:
    """Keep pictures of the page on a phone and a desk, in light and dark; axe-core finds nothing on them."""
    for width in (390, 1440):
        for scheme in ("light", "dark"):
            with on_a_screen(browser, width, scheme):
                browser.execute_async_script(FINISHED)
                assert browser.execute_script("return document.documentElement.scrollWidth") == width
                assert violations(browser) == []
                photograph(browser, f"user-{name}-{width}-{scheme}")


def test_all_of_a_user_are_found_exported_and_deleted(service: Service, browser: Chrome) -> None:
    user, tenant = f"ada.{a_session()}@example.org", "shop"
    sessions = hold(user, tenant)
    open_in_admin(service, browser, f"{CONVERSATIONS}?q={sessions[0].rpartition(':')[2]}")
    assert user in see(browser, ".facts")
    photograph_all(browser, "transcript")
    follow(browser, By.LINK_TEXT, user)
    assert all(session.rpartition(":")[2] in see(browser, "#result_list") for session in sessions)
    assert "somebody.else" not in see(browser, "#result_list")
    photograph_all(browser, "list")

    # A file is saved, so no page is left: its address is asked with the login of the browser.
    address = browser.find_element(By.PARTIAL_LINK_TEXT, "Export all").get_attribute("href")
    got = browser.execute_async_script(
        "const [address, done] = arguments;"
        "fetch(address).then(async (one) => done([one.status, (await one.arrayBuffer()).byteLength,"
        " one.headers.get('Content-Disposition')]))",
        address,
    )
    assert got[0] == 200 and got[1] > 500 and ".zip" in got[2]

    follow(browser, By.PARTIAL_LINK_TEXT, "Delete all")
    assert "3" in see(browser, ".facts", "Conversations")
    browser.find_element(By.NAME, "user").send_keys("another")
    browser.find_element(By.NAME, "reason").send_keys("Request 4711")
    follow(browser, By.CSS_SELECTOR, "[value='Delete all for good']")
    assert "Nothing was deleted" in see(browser, ".errorlist")
    browser.find_element(By.NAME, "user").clear()
    browser.find_element(By.NAME, "user").send_keys(user)
    photograph_all(browser, "delete")
    follow(browser, By.CSS_SELECTOR, "[value='Delete all for good']")
    assert "3 of 3 deleted" in see(browser, ".receipt")
    photograph_all(browser, "receipt")
    for alias in ALIASES:
        assert not any(page.sessions for page in bulk(alias).of_user(user, tenant, 100))


@pytest.mark.parametrize("width", [390, 1440])
def test_the_longest_user_is_no_wider_than_the_window(service: Service, browser: Chrome, width: int) -> None:
    user, tenant = f"{'u' * 80}{a_session()}", "t" * 128
    hold(user, tenant)
    with on_a_screen(browser, width):
        for page in (f"?user={user}", f"user-delete/?user={user}&tenant={tenant}"):
            open_in_admin(service, browser, f"{CONVERSATIONS}{page}")
            see(browser, "#content-main", user)
            photograph(browser, f"user-long-{page[:6]}-{width}")
            assert browser.execute_script("return document.documentElement.scrollWidth") == width
