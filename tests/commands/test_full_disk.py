"""Disks that are full or read-only, in earnest: a small one is mounted, in a namespace that ends with the command."""

import os
import resource
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings as django_settings

from conversations.stores import ALIASES, REDIS
from ops.backup import archive
from tests.builders import a_turn
from tests.commands.test_backup import make
from tests.commands.test_restore import everything
from tests.commands.working import hold, run

pytestmark = [
    pytest.mark.usefixtures("both_empty"),
    # Python 3.12 and later: pytest's threads beside the fork that starts a store.
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]

ISOLATED = ["unshare", "--map-root-user", "--mount"]
# What is in SEEDS is on the disk before. The command's exit code is the script's; what it left is in LEFT.
SCRIPT = """
mount -t tmpfs -o size="$SIZE" tmpfs "$DISK" && cp -p "$SEEDS"/* "$DISK" || exit 99
mount -o "remount,$RIGHTS,size=$SIZE" "$DISK" || exit 99
"$@"
code=$?
cp -rp "$DISK"/. "$LEFT"
exit $code
"""


@pytest.fixture(scope="module", autouse=True)
def _may_mount() -> None:
    if not shutil.which("unshare") or subprocess.run([*ISOLATED, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")


class Disk:
    """A small disk with a backup on it, and what is left there when a command has ended."""

    def __init__(self, home: Path) -> None:
        self.path, self.seeds, self.left = (home / name for name in ("disk", "seeds", "left"))
        for folder in (self.path, self.seeds, self.left):
            folder.mkdir()
        self.home = home

    def run(self, *words: str, size: str, rights: str = "rw", **variables: str) -> tuple[int, str]:
        """Return the exit code and all that was written; the log goes elsewhere."""
        environment = os.environ | variables | {
            "DISK": str(self.path), "SEEDS": str(self.seeds), "LEFT": str(self.left), "SIZE": size, "RIGHTS": rights,
            "VAR_DIR": str(self.home), "LOG_FORMAT": "text",
        }  # fmt: skip
        done = subprocess.run(
            [*ISOLATED, "sh", "-c", SCRIPT, "sh", sys.executable, "-W", "ignore", "manage.py", *words],
            cwd=django_settings.BASE_DIR, env=environment, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode != 99, done.stderr
        return done.returncode, done.stdout + done.stderr

    def size(self, kilobytes: int) -> str:
        """Return the size of a disk with so much room beside what is on it before: the ledger of deletions has those of
        tests before."""
        return f"{kilobytes + sum(4 * -(-path.stat().st_size // 4096) for path in self.seeds.iterdir())}k"

    def files(self) -> set[str]:
        """Return what is on it in the end, but for the lock."""
        return {path.name for path in self.left.iterdir() if path.name != ".onesource-backup.lock"}


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def hold_much() -> None:
    """Hold a megabyte that cannot be compressed to less than half."""
    for _ in range(10):
        hold(*ALIASES, turns=tuple(a_turn(secrets.token_hex(12_000), secrets.token_hex(12_000)) for _ in range(4)))


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_full_disk_leaves_older_backups_and_says_how_much_is_needed(disk: Disk, encrypted: bool) -> None:
    hold(REDIS)
    older = make(disk.seeds)
    hold_much()
    variables = {}
    if encrypted:
        key = disk.home / "keys"
        key.touch(0o600)
        key.write_text(f"one:{secrets.token_hex(32)}\n")
        variables = {"BACKUP_KEY_FILE": str(key)}
    code, written = disk.run("backup", "--to", str(disk.path), size=disk.size(180), **variables)
    assert code == 2
    assert (
        "The backup was not written; what was begun of it is removed, and older backups are as they were: " in written
    )
    assert f"the disk of {disk.path} is full: " in written
    size = f"{older.stat().st_size:,}"
    assert f" bytes are free, needed are about {size}, as {older.name} has. Make room, or --keep fewer" in written
    assert disk.files() == {older.name, "deletions.jsonl"}
    assert (disk.left / older.name).read_bytes() == older.read_bytes()
    assert (disk.left / "deletions.jsonl").read_bytes() == (disk.seeds / "deletions.jsonl").read_bytes()


def test_a_disk_with_no_room_at_all(disk: Disk) -> None:
    """Not even the first byte of it."""
    hold(REDIS)
    (disk.seeds / "mine").write_bytes(bytes(65_536))
    code, written = disk.run("backup", "--to", str(disk.path / "below"), size="64k")
    assert code == 2
    assert f"the disk of {disk.path / 'below'} is full: 0 bytes are free, needed are as many as both stores" in written
    assert not list((disk.left / "below").glob("[!.]*"))


def test_a_read_only_folder(disk: Disk) -> None:
    hold(REDIS)
    older = make(disk.seeds)
    code, written = disk.run("backup", "--to", str(disk.path), size="1m", rights="ro")
    assert code == 2
    assert f"{disk.path} cannot be written to by user " in written
    assert "read-only file system. Give it the right, or --to elsewhere" in written
    assert disk.files() == {older.name, "deletions.jsonl"}


def test_a_missing_folder_on_a_read_only_disk(disk: Disk) -> None:
    (disk.seeds / "mine").touch()
    code, written = disk.run("backup", "--to", str(disk.path / "none"), size="1m", rights="ro")
    assert code == 2
    assert f"{disk.path / 'none'} cannot be written to by user " in written


def test_a_limit_of_file_sizes(tmp_path: Path) -> None:
    hold_much()
    most = 300_000

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    done = subprocess.run(  # noqa: PLW1509
        [sys.executable, "manage.py", "backup", "--to", str(tmp_path / "to")],
        cwd=django_settings.BASE_DIR, env=os.environ | {"LOG_FORMAT": "text", "VAR_DIR": str(tmp_path)},
        preexec_fn=limit, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"no file in {tmp_path / 'to'} may have more than 300,000 bytes, needed are as many as both" in done.stderr
    assert "Raise the limit (ulimit -f), or --to elsewhere" in done.stderr
    assert not list((tmp_path / "to").glob("[!.]*"))


@pytest.mark.parametrize("size", ["64k", "500k", "1m"])
def test_verify_without_room_for_its_stores_says_where_and_leaves_nothing(disk: Disk, size: str) -> None:
    """Whichever store fails, and how: it is not what is wrong."""
    hold_much()
    path = make(disk.home)
    (disk.seeds / "mine").touch()
    code, written = disk.run("backup", "verify", str(path), size=size, TMPDIR=str(disk.path))
    assert code == 2
    assert f"The backup could not be tried out: {disk.path} has only " in written
    assert (
        "or name another folder with TMPDIR. What was written there is removed, and the backup is as it was" in written
    )
    assert disk.files() == {"mine"}
    assert archive.is_ours(path)


@pytest.mark.parametrize("words", [["backup", "verify"], ["restore", "--into", "both"]])
@pytest.mark.parametrize(("name", "reason"), [("none.zip", "no such file or directory"), ("", "is a directory")])
def test_a_backup_that_is_not_there_is_named(tmp_path: Path, words: list[str], name: str, reason: str) -> None:
    hold(*ALIASES)
    before = everything()
    path = tmp_path / name
    assert run(*words, str(path)) == (2, f"The backup cannot be read, and nothing was changed: {path}: {reason}\n")
    assert everything() == before
