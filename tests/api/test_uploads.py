"""No page accepts a file, and none is kept, in memory or on a disk."""

import tempfile

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

CSRF = "a" * 32
LARGE = 3_000_000  # more than Django keeps in memory


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the folders of the temporary files that are made from now on."""
    made: list[str] = []
    make = tempfile._mkstemp_inner  # type: ignore[attr-defined]

    def note(folder: str, *arguments: object) -> object:
        made.append(folder)
        return make(folder, *arguments)

    monkeypatch.setattr(tempfile, "_mkstemp_inner", note)
    return made


@pytest.mark.parametrize("size", [10, LARGE])
@pytest.mark.parametrize("path", ["/livez", "/admin/login/", "/api/chat/ask"])
def test_an_uploaded_file_is_written_nowhere(temporary: list[str], path: str, size: int) -> None:
    """The CSRF check reads the form, and with it the files, of every POST."""
    client = Client(enforce_csrf_checks=True)
    client.cookies["csrftoken"] = CSRF
    response = client.post(path, {"question": "What?", "file": SimpleUploadedFile("f", b"x" * size)})
    assert 400 <= response.status_code < 500
    assert temporary == []


def test_the_other_fields_of_the_form_are_read() -> None:
    client = Client(enforce_csrf_checks=True)
    client.cookies["csrftoken"] = CSRF
    fields = {"csrfmiddlewaretoken": CSRF, "file": SimpleUploadedFile("f", b"x" * LARGE)}
    assert client.post("/admin/login/", fields).status_code == 200  # 403 without the token
