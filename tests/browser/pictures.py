"""Takes the pictures of the console that README and docs show, anew into docs/images; to be looked at before they are
committed.

    .venv/bin/python -m pytest tests/browser/pictures.py
"""

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By

from conversations.background import sampling
from conversations.clock import now
from conversations.stores import ALIASES, control, store
from tests import environment
from tests.browser.looking import follow, on_a_screen, open_in_admin, photograph, see
from tests.builders import a_turn
from tests.faults.service import ROOT, Service
from tests.servers import RedisServer

IMAGES = ROOT / "docs" / "images"
MOST = 150_000  # bytes: a page that shows four of them has to load

REFUND = "shop:order-48213"
CONVERSATIONS = {  # minutes ago, questions and answers
    REFUND: [
        (52, "Hello, my kettle arrived with a cracked lid. Can I get a replacement?",
         "I am sorry about that. Yes: a cracked lid is covered for **two years**. I can do one of these:\n\n"
         "1. send you a new lid, which arrives in 2 to 3 days\n2. refund the kettle, once you have sent it back"),
        (49, "A new lid is enough. What do you need from me?",
         "Only the order number and a photo of the lid. The model is on the base of the kettle, as in `KT-170-S`."),
        (44, "It is KT-170-S, order 48213. The photo is on its way by e-mail.",
         "Thank you. A new lid for **KT-170-S** leaves our warehouse tomorrow. You need not send the old one back."),
        (3, "Will I get an e-mail when it leaves the warehouse?",
         "Yes, with a link to follow the parcel. It goes to the address of your order."),
    ],
    "shop:order-48190": [(9, "Can I still change the delivery address of my order?", "Yes, until 16:00.")],
    "helpdesk:laptop-0417": [
        (21, "My laptop does not find the printer on the third floor any more.", "Is it in the list of printers?"),
        (17, "It is in the list, but it says offline.", "Then remove it and add it again as `print-3f`."),
    ],
    "shop:order-48077": [(34, "How long does a refund take to reach my bank account?", "Three to five working days.")],
    "library:reader-2291": [(58, "Please renew my two books until the end of January.", "Done: both.")],
    "helpdesk:vpn-0398": [(75, "How do I connect to the VPN from a hotel network?", "Use the profile “port 443”.")],
    "shop:gift-cards": [(121, "Do gift cards expire?", "No. A gift card can be used at any time.")],
    "library:opening-hours": [(190, "Is the reading room open on Sunday afternoon?", "Yes, from 13:00 to 18:00.")],
    "helpdesk:password-0377": [(260, "I have a new phone. How do I set up its second factor?", "Under “Account”.")],
    "travel:lisbon-weekend": [(340, "Which tram goes from the castle to Belém?", "Take the 28 down, then the 15.")],
}  # fmt: skip

USERS = {"shop:order-48213": "ada@example.org", "shop:order-48077": "ada@example.org", "library:reader-2291": "r-2291"}

SCRIPT = """
import math
from datetime import UTC, datetime, timedelta
from django.contrib.auth.models import User
from ops.models import Sample

User.objects.create_superuser("op", password="correct horse")
now = datetime.now(UTC).replace(second=0, microsecond=0)
for minutes in range(2, 24 * 60):
    at = now - timedelta(minutes=minutes)
    busy = 0.5 - 0.5 * math.cos(2 * math.pi * (at.hour + at.minute / 60 - 2) / 24)
    reads = round(20 + 380 * busy)
    Sample.objects.create(machine="chat-1", at=at, p95_ms=3 + 9 * busy + at.minute % 7 / 3, reads=reads,
                          hits=reads - reads // 60, memory_bytes=310e6 + 40e6 * busy + 20e3 * (1440 - minutes),
                          persist_errors=0, unsynced=0)
"""
"""An operator, and a day of figures, busiest in the afternoon."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, _servers: None) -> Iterator[Service]:
    """A server with dual write, an operator, and these conversations in both stores."""
    started = Service(
        tmp_path_factory.mktemp("pictures"),
        REDIS_URL=environment.REDIS.url,
        MONGO_URL=environment.MONGO.url,
        ANSWERER="recall",
        CONV_DUAL_WRITE="1",
        CONV_MAX_TURNS="16",
        WEB_CONCURRENCY="2",
    ).start()
    started.wait()
    subprocess.run([sys.executable, "manage.py", "shell", "-c", SCRIPT], env=started.environment, cwd=ROOT, check=True,
                   capture_output=True)  # fmt: skip
    for alias in ALIASES:
        control(alias).write_note(sampling.NOTE, (now() - timedelta(hours=7)).isoformat())
        control(alias).write_note(sampling.VERIFIED, (now() - timedelta(days=2)).isoformat())
    for session, turns in CONVERSATIONS.items():
        for minutes, question, answer in turns:
            turn = a_turn(question, answer, at=now() - timedelta(minutes=minutes), user=USERS.get(session))
            for alias in ALIASES:
                store(alias).append(session, turn)
    yield started
    started.stop()


def take(browser: Chrome, name: str) -> None:
    """Keep a picture of what the window shows."""
    picture = IMAGES / f"{name}.png"
    assert browser.save_screenshot(str(picture))
    assert picture.stat().st_size <= MOST, f"{picture} has {picture.stat().st_size:,} bytes"


@pytest.fixture(autouse=True)
def _screen(browser: Chrome) -> Iterator[None]:
    with on_a_screen(browser, 1440):
        yield


def test_list(service: Service, browser: Chrome) -> None:
    open_in_admin(service, browser, "conversations/conversation/")
    see(browser, "#result_list", REFUND.partition(":")[2])
    take(browser, "console-list")
    with on_a_screen(browser, 390, "dark"):
        take(browser, "console-list-390-dark")
    with on_a_screen(browser, 390):
        photograph(browser, "list-390-light")


def test_transcript(service: Service, browser: Chrome) -> None:
    open_in_admin(service, browser, f"conversations/conversation/conv_3A{REFUND.replace(':', '_3A')}/change/")
    see(browser, ".transcript .assistant")
    take(browser, "console-transcript")


def test_plan(service: Service, browser: Chrome) -> None:
    open_in_admin(service, browser, "actions/")
    follow(browser, By.CSS_SELECTOR, "#failover [type=submit]")
    see(browser, ".agree")
    take(browser, "actions-plan")


def test_status(service: Service, browser: Chrome, redis_server: RedisServer) -> None:
    open_in_admin(service, browser, "status/")
    redis_server.kill()
    try:
        see(browser, ".verdict.bad li", "redis is out")
        take(browser, "status-redis-out")
    finally:
        redis_server.start()
