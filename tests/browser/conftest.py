"""The browser, Chromium without a window, with a profile of its own; and a server for it. Both take seconds to start,
so that the modules share them: tests/conftest.py keeps these together."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from tests import environment
from tests.faults.service import ROOT, Service

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-quic", "--window-size=1280,1600")  # fmt: skip


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and driver):
        if os.environ.get("CI"):
            pytest.fail("chromium and chromedriver are not installed; .ci/run installs them")
        pytest.skip("chromium and chromedriver are not installed")
    options = ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    started = Chrome(options=options, service=ChromeService(driver))
    yield started
    started.quit()


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory, _servers: None) -> Iterator[Service]:
    """A server on this process' stores, with an operator who may log in."""
    started = Service(
        tmp_path_factory.mktemp("browser"),
        REDIS_URL=environment.REDIS.url,
        MONGO_URL=environment.MONGO.url,
        ANSWERER="recall",
        WEB_CONCURRENCY="1",
    ).start()
    started.wait()
    subprocess.run(
        [sys.executable, "manage.py", "createsuperuser", "--noinput", "--username=op", "--email=op@example.org"],
        env={**started.environment, "DJANGO_SUPERUSER_PASSWORD": "correct horse"},
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    yield started
    started.stop()
