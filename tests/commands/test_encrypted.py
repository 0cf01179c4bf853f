"""Encrypted backups: what `backup`, `backup verify` and `restore` do with keys, and refuse."""

import secrets
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_django import Settings

from conversations.stores import ALIASES, MONGO, REDIS, store
from ops.backup import archive, sealed
from tests.builders import a_turn, some_turns
from tests.commands.test_backup import FORMAT_1, in_one_process, make  # noqa: F401
from tests.commands.test_restore import everything, lose
from tests.commands.working import hold, run, run_json, turns_in
from tests.servers import MongoServer, RedisServer

pytestmark = [
    pytest.mark.usefixtures("both_empty"),
    # Python 3.12 and later: pytest's threads beside the fork that starts a store.
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]

KEYS = {name: f"{name}:{secrets.token_hex(32)}\n" for name in ("old", "new")}


class KeyFile:
    """The file that BACKUP_KEY_FILE names, also for processes that this one starts."""

    def __init__(self, path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        self._path, self._settings, self._monkeypatch = path, settings, monkeypatch
        path.touch(0o600)

    def has(self, *names: str) -> None:
        """Let it have these keys; without any the variable is unset."""
        self.is_text("".join(KEYS[name] for name in names))
        self._set(str(self._path) if names else "")

    def is_text(self, text: str) -> None:
        self._path.write_text(text)
        self._set(str(self._path))

    def _set(self, value: str) -> None:
        self._settings.BACKUP_KEY_FILE = value
        self._monkeypatch.setenv("BACKUP_KEY_FILE", value)


@pytest.fixture
def key_file(tmp_path_factory: pytest.TempPathFactory, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> KeyFile:
    file = KeyFile(tmp_path_factory.mktemp("keys") / "backup.keys", settings, monkeypatch)
    file.has("new")
    return file


def test_it_is_restored_and_verified_as_any_other(
    tmp_path: Path, key_file: KeyFile, redis_server: RedisServer, mongo_server: MongoServer
) -> None:
    """In the processes too that verify starts."""
    turns = some_turns(3)
    session = hold(*ALIASES, turns=turns)
    code, report = run_json("backup", "--to", str(tmp_path))
    path = Path(report["file"])
    assert (code, report["key"], path.name[-8:]) == (0, "new", ".zip.enc")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    code, report = run_json("backup", "verify", str(path))
    assert (code, report["conversations"], report["differing"]) == (0, {REDIS: 1, MONGO: 1}, 0)
    lose(redis_server, mongo_server, *ALIASES)
    assert run("restore", str(path), "--into", "both")[0] == 0
    assert turns_in(REDIS, session) == turns_in(MONGO, session) == turns


def test_nothing_of_a_conversation_is_in_the_file_in_clear(tmp_path: Path, key_file: KeyFile) -> None:
    session = hold(*ALIASES, turns=(a_turn("a question of nobody else"),))
    data = make(tmp_path).read_bytes()
    assert data.startswith(b"onesource-encrypted 1 new ")
    for words in (session.encode(), b"nobody else", b"conversations.jsonl", b"manifest", b"REDIS", b"PK\3\4"):
        assert words not in data
    assert not list(tmp_path.glob(".onesource-*.part"))


def test_people_are_told_which_key_it_needs(tmp_path: Path, key_file: KeyFile) -> None:
    hold(REDIS)
    code, written = run("backup", "--to", str(tmp_path))
    assert (code, "  encrypted with the key new\n" in written) == (0, True)


def flipped(place: int) -> Callable[[bytes], bytes]:
    def damage(data: bytes) -> bytes:
        at = place % len(data)
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    return damage


def exchanged(data: bytes) -> bytes:
    """Return it with its first two chunks exchanged."""
    begin, size = data.index(b"\n") + 1, sealed.CHUNK + sealed.TAG
    return data[:begin] + data[begin + size : begin + 2 * size] + data[begin : begin + size] + data[begin + 2 * size :]


BAD: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "flipped in the id of the key": (flipped(22), "encrypted with the key oew, which is not in the file"),
    "changed in the salt": (
        lambda data: data[:27] + (b"1" if data[27:28] == b"0" else b"0") + data[28:],
        "not authentic",
    ),
    "flipped in the first chunk": (flipped(200), "not authentic: it was changed, or the key new here is not the one"),
    "flipped in another chunk": (flipped(sealed.CHUNK + 1000), "not authentic: bytes 65,536 to 131,072 were changed"),
    "flipped at its end": (flipped(-1), "not authentic: it was cut off, or changed at its end"),
    "cut": (lambda data: data[: len(data) // 2], "not authentic: it was cut off"),
    "cut between chunks": (lambda data: data[: data.index(b"\n") + 1 + 65_552], "not authentic"),
    "a byte less": (lambda data: data[:-1], "not authentic: it was cut off"),
    "longer": (lambda data: data + b"x", "not authentic: it was cut off"),
    "its first line alone": (lambda data: data[: data.index(b"\n") + 1], "truncated"),
    "chunks exchanged": (exchanged, "not authentic"),
    "of a later version": (lambda data: data.replace(b" 1 ", b" 2 ", 1), "newer"),
}


@pytest.mark.parametrize("how", BAD)
def test_what_was_changed_is_refused_before_anything_changes(tmp_path: Path, key_file: KeyFile, how: str) -> None:
    session = hold(*ALIASES, turns=tuple(a_turn(secrets.token_hex(50_000)) for _ in range(4)))
    path = make(tmp_path)
    damage, reason = BAD[how]
    bad = tmp_path / "bad.zip.enc"
    bad.write_bytes(damage(path.read_bytes()))
    for alias in ALIASES:
        store(alias).delete(session, turns_in(alias, session)[0].answer.id)
    before = everything()
    code, written = run("restore", str(bad), "--into", "both", "--replace", "--noinput")
    assert code == 2
    assert f"{bad}: This file cannot be restored: {reason}" in written
    assert written.endswith("nothing was changed\n")
    assert everything() == before


@pytest.mark.parametrize("how", ["flipped in another chunk", "cut between chunks", "chunks exchanged"])
def test_verify_refuses_it_too(tmp_path: Path, key_file: KeyFile, how: str) -> None:
    hold(REDIS, turns=tuple(a_turn(secrets.token_hex(50_000)) for _ in range(2)))
    path = make(tmp_path)
    path.write_bytes(BAD[how][0](path.read_bytes()))
    code, written = run("backup", "verify", str(path))
    assert code == 1
    assert f"{path}: This file cannot be restored: not authentic" in written


def test_another_files_chunks_of_the_same_key_are_refused(tmp_path: Path, key_file: KeyFile) -> None:
    hold(REDIS, turns=tuple(a_turn(secrets.token_hex(50_000)) for _ in range(2)))
    one, other = make(tmp_path), make(tmp_path)
    place = 2 * sealed.CHUNK
    data = one.read_bytes()
    one.write_bytes(data[:100] + other.read_bytes()[100:place] + data[place:])
    assert "not authentic" in run("restore", str(one), "--into", "redis")[1]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ((), "encrypted with the key old: set BACKUP_KEY_FILE to the file that has it"),
        (("new",), "encrypted with the key old, which is not in the file of BACKUP_KEY_FILE"),
    ],
)
def test_without_its_key_nothing_is_restored(
    tmp_path: Path, key_file: KeyFile, names: tuple[str, ...], reason: str
) -> None:
    hold(REDIS)
    key_file.has("old")
    path = make(tmp_path)
    key_file.has(*names)
    code, written = run("restore", str(path), "--into", "both")
    assert (code, written) == (2, f"{path}: This file cannot be restored: {reason}; nothing was changed\n")
    assert run("backup", "verify", str(path)) == (1, f"{path}: This file cannot be restored: {reason}\n")


def test_a_key_of_the_same_name_is_another_key(tmp_path: Path, key_file: KeyFile) -> None:
    hold(REDIS)
    path = make(tmp_path)
    key_file.is_text(f"new:{secrets.token_hex(32)}\n")
    assert "the key new here is not the one that encrypted it" in run("restore", str(path), "--into", "both")[1]


@pytest.mark.usefixtures("in_one_process")
def test_keys_are_replaced_and_what_the_old_one_encrypted_is_restored(tmp_path: Path, key_file: KeyFile) -> None:
    hold(REDIS)
    key_file.has("old")
    before = make(tmp_path)
    key_file.has("new", "old")
    after = make(tmp_path)
    for path, key in ((before, b"old"), (after, b"new")):
        assert path.read_bytes().split()[2] == key
        assert run("restore", str(path), "--into", "redis")[0] == 0
        assert run("backup", "verify", str(path))[0] == 0


@pytest.mark.parametrize("old", ["zip", "tar"])
def test_with_a_key_what_is_not_encrypted_is_refused(tmp_path: Path, key_file: KeyFile, old: str) -> None:
    """Whoever can write to the folder could have made it. The message has the way out for one of before."""
    hold(REDIS)
    key_file.has()
    path = make(tmp_path) if old == "zip" else Path(shutil.copy(FORMAT_1, tmp_path))
    key_file.has("new")
    before = everything()
    for code, words in ((2, ["restore", str(path), "--into", "both"]), (1, ["backup", "verify", str(path)])):
        found, written = run(*words)
        assert found == code
        assert f"{path}: This file cannot be restored: not encrypted, so nothing shows who made it" in written
        assert "where this command runs with an empty BACKUP_KEY_FILE" in written
    assert everything() == before
    key_file.has()
    assert run("restore", str(path), "--into", "both")[0] in (0, 1)


def test_a_bad_key_file_stops_each_command_and_is_named(tmp_path: Path, key_file: KeyFile) -> None:
    hold(REDIS)
    path = make(tmp_path)
    key_file.is_text("a secret that is no key")
    folder = tmp_path / "another"
    for words in (
        ["backup", "--to", str(folder)],
        ["backup", "verify", str(path)],
        ["restore", str(path), "--into", "both"],
    ):
        code, written = run(*words)
        assert code == 2
        assert written.startswith("BACKUP_KEY_FILE is not usable: ")
        assert "line 1 must look like id:key" in written
        assert "a secret" not in written
    assert not folder.exists()


def test_old_ones_of_every_kind_are_counted_and_removed_but_none_without_its_key(
    tmp_path: Path, key_file: KeyFile
) -> None:
    key_file.has()
    plain = make(tmp_path)
    key_file.has("old")
    unknown = make(tmp_path)
    key_file.has("new")
    make(tmp_path)
    code, report = run_json("backup", "--to", str(tmp_path), "--keep", "2")
    assert (code, report["removed"]) == (0, [plain.name])
    assert unknown.exists()


def test_it_is_complete_by_its_beginning_and_end_alone(tmp_path: Path, key_file: KeyFile) -> None:
    """What keeps so many need not read each of them."""
    hold(REDIS, turns=tuple(a_turn(secrets.token_hex(50_000)) for _ in range(4)))
    path = make(tmp_path)
    data = path.read_bytes()
    path.write_bytes(flipped(2 * sealed.CHUNK)(data))
    assert archive.is_ours(path)
    path.write_bytes(data[: len(data) - sealed.CHUNK])
    assert not archive.is_ours(path)


def test_keys_are_made_by_the_commands_that_the_documents_have(tmp_path: Path, key_file: KeyFile) -> None:
    path = tmp_path / "made"
    command = f'umask 077; echo "2026-11:$(openssl rand -hex 32)" > {path}'
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl here")
    subprocess.run(["sh", "-c", command], check=True)
    key_file.is_text(path.read_text())
    assert run_json("backup", "--to", str(tmp_path))[1]["key"] == "2026-11"
