"""What a page shows and does, waited for."""

import json

from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import staleness_of
from selenium.webdriver.support.wait import WebDriverWait

PATIENCE = 20  # seconds


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
        return WebDriverWait(browser, PATIENCE, ignored_exceptions=redrawn).until(there) or ""
    except TimeoutException:
        raise TimeoutException(f"{selector} does not say {text!r}: {found}") from None


def follow(browser: Chrome, by: str, what: str) -> None:
    """Click what leads to another page; return when this page has been left, since a click does not wait for that."""
    page = browser.find_element(By.TAG_NAME, "html")
    browser.find_element(by, what).click()
    WebDriverWait(browser, PATIENCE).until(staleness_of(page))
