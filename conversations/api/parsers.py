"""Request bodies: only JSON that both stores can hold."""

from collections.abc import Mapping
from typing import IO, Any, NoReturn

import orjson
from django.conf import settings
from django.core.files.uploadhandler import FileUploadHandler, SkipFile
from django.http import UnreadablePostError
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

from conversations.errors import TooLarge


class StrictJSONParser(BaseParser):
    """Reads JSON with orjson, which refuses lone surrogates, NaN and deep nesting; the standard library does not."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        try:
            body = stream.read(settings.MAX_BODY_BYTES + 1)
        except UnreadablePostError:
            raise ParseError("The request body ended early.") from None
        if len(body) > settings.MAX_BODY_BYTES:
            raise TooLarge
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise ParseError(f"The request body is not JSON: {error}") from None


class DiscardFiles(FileUploadHandler):
    """Skips the files of a form, and keeps its other fields.

    The CSRF check reads the form of any POST that has the cookie. Django's own handlers would write its files to
    the temporary folder, whatever their size.
    """

    def new_file(self, *arguments: Any, **options: Any) -> NoReturn:
        raise SkipFile

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        """Never called: every file is skipped before its first chunk."""

    def file_complete(self, file_size: int) -> None:
        """Nothing was kept."""
