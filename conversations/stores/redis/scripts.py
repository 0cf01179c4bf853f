"""The Lua scripts, each one atomic step.

A line `-- include: turns.lua` stands for the text of lua/include/turns.lua. A script is assembled once in a process.
"""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from redis import Redis
from redis.commands.core import Script
from redis.exceptions import NoScriptError

from conversations.stores.redis.kept import Command

_FOLDER = Path(__file__).parent / "lua"
NAMES = frozenset(path.stem for path in _FOLDER.glob("*.lua"))
_INCLUDE = re.compile(r"^-- include: (\w+\.lua)$", re.MULTILINE)


@cache
def source(name: str) -> str:
    """Return the text of a script, with what it includes."""
    return _INCLUDE.sub(lambda line: (_FOLDER / "include" / line[1]).read_text(), (_FOLDER / f"{name}.lua").read_text())


def registered(client: Redis) -> dict[str, Script]:
    """Return the scripts by name; the driver sends one where the server does not have it."""
    return {name: client.register_script(source(name)) for name in NAMES}


def run_each(
    client: Any, script: Script, keys: list[str], argument: int, beside: Sequence[Command] = ()
) -> tuple[list[tuple[int | None, bytes, bytes]], list[Any]]:
    """Return the script's answers for one key after another, each with the same argument, and those of the commands
    beside it. By its digest: the driver's own way to have a script in a pipeline asks first whether the server has it,
    a round trip more each time."""
    try:
        return _evaluated(client, script.sha, keys, argument, beside)
    except NoScriptError:
        client.script_load(script.script)
        return _evaluated(client, script.sha, keys, argument, beside)


def _evaluated(
    client: Any, sha: str, keys: list[str], argument: int, beside: Sequence[Command]
) -> tuple[list[tuple[int | None, bytes, bytes]], list[Any]]:
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.evalsha(sha, 1, key, argument)
    for command in beside:
        pipeline.execute_command(*command)
    answers = pipeline.execute()
    return [answer or (None, b"", b"") for answer in answers[: len(keys)]], answers[len(keys) :]
