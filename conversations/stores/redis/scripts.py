"""The Lua scripts, each one atomic step."""

from pathlib import Path
from typing import Any

from redis import Redis
from redis.commands.core import Script
from redis.exceptions import NoScriptError

_FOLDER = Path(__file__).parent / "lua"


def registered(client: Redis) -> dict[str, Script]:
    """Return the scripts by name; the driver sends one where the server does not have it."""
    return {path.stem: client.register_script(path.read_text()) for path in _FOLDER.glob("*.lua")}


def run_each(client: Any, script: Script, keys: list[str]) -> list[tuple[int | None, bytes]]:
    """Return the script's answers for one key after another. By its digest: the driver's own way to have a script in
    a pipeline asks first whether the server has it, a round trip more each time."""
    try:
        return _evaluated(client, script.sha, keys)
    except NoScriptError:
        client.script_load(script.script)
        return _evaluated(client, script.sha, keys)


def _evaluated(client: Any, sha: str, keys: list[str]) -> list[tuple[int | None, bytes]]:
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.evalsha(sha, 1, key)
    return [answer or (None, b"") for answer in pipeline.execute()]
