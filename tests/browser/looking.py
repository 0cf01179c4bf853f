"""What a page shows and does, waited for."""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from selenium.common.exceptions import StaleElementReferenceException, TimeoutException, WebDriverException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.faults.service import ROOT, Service

PATIENCE = 20  # seconds
SCREENSHOTS = ROOT / "var" / "screenshots"
"""What the tests have seen, for people to look at; CI keeps it."""


def waiting(
    browser: Chrome, patience: float = PATIENCE, ignored: Iterable[type[Exception]] = ()
) -> "WebDriverWait[Chrome]":
    """Return what waits for the browser, and looks often: by default it would look again after half a second."""
    return WebDriverWait(browser, patience, poll_frequency=0.1, ignored_exceptions=ignored)


def hosts_asked(browser: Chrome) -> set[str]:
    """Return every host that the pages so far have sent a request to."""
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    urls = (m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent")
    return {url.split("/")[2] for url in urls if url.startswith("http")}


def see(browser: Chrome, selector: str, text: str = "") -> str:
    """Return the text of the element once it is there and says so; what it said instead is in the exception."""
    found: list[str] = []

    def there(_: Chrome) -> str | None:
        found[:] = [one.text for one in browser.find_elements(By.CSS_SELECTOR, selector)]
        return next((said or " " for said in found if text in said), None)

    redrawn = [StaleElementReferenceException]
    try:
        return waiting(browser, ignored=redrawn).until(there) or ""
    except TimeoutException:
        raise TimeoutException(f"{selector} does not say {text!r}: {found}") from None


def follow(browser: Chrome, by: str, what: str) -> None:
    """Click what leads to another page; return when this page has been left, since a click does not wait for that."""
    page = browser.find_element(By.TAG_NAME, "html")
    browser.find_element(by, what).click()

    def left(_: Chrome) -> bool:
        try:
            page.is_enabled()
        except StaleElementReferenceException:
            return True
        except WebDriverException as error:  # what the driver says while one page replaces the other
            if "does not belong to the document" not in str(error.msg):
                raise
        return False

    waiting(browser).until(left)


def open_in_admin(service: Service, browser: Chrome, path: str) -> None:
    """Open a page of the admin, and log in if nobody has yet."""
    browser.get(f"http://localhost:{service.port}/admin/{path}")
    if browser.find_elements(By.NAME, "username"):
        browser.find_element(By.NAME, "username").send_keys("op")
        browser.find_element(By.NAME, "password").send_keys("correct horse")
        follow(browser, By.CSS_SELECTOR, "[type=submit]")


@contextmanager
def on_a_screen(browser: Chrome, width: int, scheme: str = "light") -> Iterator[None]:
    """A window of this width, in light or dark colours."""
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    preferred = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", preferred)
    try:
        yield
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def photograph(browser: Chrome, name: str) -> None:
    """Keep a picture of the page under this name."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    browser.save_screenshot(str(SCREENSHOTS / f"{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}.png"))
