"""The answerer of the chat page's tests: it shows what it was given, in Markdown, and can wait in the middle."""

import time
from collections.abc import Iterator
from pathlib import Path

from django.conf import settings

from conversations.answerers.base import Answerer
from conversations.errors import AnswererFailed
from conversations.turns import History

GO_ON = "go-on"
"""The file in VAR_DIR that ends the waiting."""
REST = """

- **bold**, *italic* and `code`
- [a page](https://example.org/here) and [no page](javascript:document.title='run')

```print(1)``` is code in a line.

```python
kept = "<b>as it is</b>"
```

<img src=x onerror="document.title='run'"> is only text."""


class InPieces(Answerer):
    """Names the questions so far; asked to be slow, it stops after them until the file is there; it can fail too."""

    def answer(self, question: str, history: History, *, behind: bool = False) -> Iterator[str]:
        if "failing" in question:
            raise AnswererFailed("as the question asks")
        earlier = [message.content for message in history[::2]]
        yield f"After {len(earlier)} questions: {', '.join(earlier) or 'none'}."
        while "slowly" in question and not (Path(settings.VAR_DIR) / GO_ON).exists():
            time.sleep(0.02)
        yield REST
