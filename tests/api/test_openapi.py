"""The OpenAPI document is true: what it allows is accepted, all else refused, and every response conforms."""

from typing import Any

import pytest
import schemathesis
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.test import Client
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from pytest_django import Settings

from tests.builders import a_session, a_turn, make_token

schemathesis.openapi.format("cursor", st.just(""))
schemathesis.openapi.format("moment", st.one_of(st.dates(), st.datetimes()).map(lambda time: time.isoformat()))
schemathesis.openapi.format("message-id", st.builds(lambda: a_turn().answer.id))  # none of the future
CONFIG = schemathesis.Config.from_dict(
    {
        "auth": {"openapi": {"token": {"bearer": make_token("schemathesis", a_session())}}},
        "checks": {
            # 503 is documented, for a client that needs context which is not there.
            "not_a_server_error": {"expected-statuses": ["2xx", "4xx", "503"]},
            # 409 and 422 are documented, for a key that was used before: its turn was deleted or trimmed since, or it
            # has another question.
            # 413: what is wrong may also be too long, and is not read then.
            "negative_data_rejection": {"expected-statuses": ["4xx", "503"]},
            "positive_data_acceptance": {"expected-statuses": ["2xx", "404", "409", "422", "503"]},
        },
    }
)
schema = schemathesis.openapi.from_wsgi("/api/schema/", get_wsgi_application(), config=CONFIG)


@pytest.fixture(autouse=True)
def _tokens(settings: Settings) -> None:
    """In the document every operation needs a token."""
    settings.CHAT_AUTH, settings.CHAT_RATE = "token", ""


@schema.parametrize()
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_service_conforms_to_its_openapi_document(case: Any) -> None:
    case.call_and_validate()


def test_the_openapi_document_is_generated_without_a_warning() -> None:
    call_command("spectacular", "--fail-on-warn", "--validate", file="/dev/null")


def test_the_openapi_document_has_every_address_once() -> None:
    """With or without the trailing slash as in the README; the other spelling works too."""
    page = Client().get("/api/schema/", headers={"Accept": "application/vnd.oai.openapi+json"})
    assert {path: sorted(methods) for path, methods in page.json()["paths"].items()} == {
        "/api/chat/ask": ["post"],
        "/api/chat/conversations/": ["get"],
        "/api/chat/conversations/{session_id}/": ["delete", "get"],
        "/api/chat/conversations/{session_id}/export": ["get"],
        "/api/chat/conversations/{session_id}/turns": ["post"],
    }
