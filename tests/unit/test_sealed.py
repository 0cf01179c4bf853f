"""How a backup is encrypted: what of a file can be read, and that nothing of it can be changed."""

import io
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pytest_django import Settings

from ops.backup import keys, sealed
from ops.backup.keys import Keys
from ops.errors import BadBackup, BadKeys

ONE: Keys = {"one": secrets.token_bytes(32)}
TWO: Keys = {"two": secrets.token_bytes(32)}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks so short that every byte of several can be tried."""
    monkeypatch.setattr(sealed, "CHUNK", 32)


def seal(text: bytes, known: Keys = ONE) -> bytes:
    file = io.BytesIO()
    sealing = sealed.Sealing(file, known)
    for begin in range(0, len(text), 7):
        sealing.write(text[begin : begin + 7])
    sealing.finish()
    return file.getvalue()


def read(data: bytes, known: Keys = ONE) -> bytes:
    """Return the text; raise BadBackup, at the latest by `check`."""
    opened = sealed.Opened(io.BytesIO(data), known)
    opened.check()
    return opened.read() or b""


def parts(data: bytes) -> tuple[bytes, list[bytes]]:
    """Return the first line and the chunks."""
    head, _, rest = data.partition(b"\n")
    size = sealed.CHUNK + sealed.TAG
    return head + b"\n", [rest[begin : begin + size] for begin in range(0, len(rest), size)]


@pytest.mark.parametrize("size", [1, 31, 32, 33, 64, 65, 1000])
def test_what_was_written_is_read_from_any_place(size: int) -> None:
    text = secrets.token_bytes(size)
    assert read(seal(text)) == text
    opened = io.BufferedReader(sealed.Opened(io.BytesIO(seal(text)), ONE), 8)
    for begin in range(size, -1, -3):
        opened.seek(begin)
        assert opened.read(40) == text[begin : begin + 40]
    assert opened.seek(0, io.SEEK_END) == size


def test_it_is_decrypted_by_what_the_docstring_says_alone() -> None:
    text = b"as a program of another hand would do it" * 3
    head, chunks = parts(seal(text))
    magic, version, key, salt = head.split()
    assert (magic, version, key) == (b"onesource-encrypted", b"1", b"one")
    derived = HKDF(SHA256(), 39, bytes.fromhex(salt.decode()), info=head).derive(ONE["one"])
    nonces = [derived[32:] + number.to_bytes(4, "big") + bytes([0]) for number in range(len(chunks))]
    nonces[-1] = nonces[-1][:-1] + b"\1"
    decrypt = AESGCM(derived[:32]).decrypt
    assert b"".join(decrypt(*each, None) for each in zip(nonces, chunks, strict=True)) == text


def test_each_bit_that_is_flipped_is_found() -> None:
    data = seal(secrets.token_bytes(100))
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        with pytest.raises(BadBackup):
            read(bytes(changed))


def test_each_end_that_is_missing_is_found_when_it_is_opened() -> None:
    data = seal(secrets.token_bytes(100))
    for length in range(len(data)):
        with pytest.raises(BadBackup):
            sealed.Opened(io.BytesIO(data[:length]), ONE)


MOVED: dict[str, Callable[[list[bytes], list[bytes]], list[bytes]]] = {
    "two exchanged": lambda ours, others: [ours[0], ours[2], ours[1], ours[3]],
    "the last one missing": lambda ours, others: ours[:-1],
    "one missing": lambda ours, others: ours[:1] + ours[2:],
    "one twice": lambda ours, others: [ours[0], ours[0], *ours[1:]],
    "the last one twice": lambda ours, others: [*ours, ours[-1]],
    "one of another file at its place": lambda ours, others: [ours[0], others[1], *ours[2:]],
    "the end of another file": lambda ours, others: [*ours[:-1], others[-1]],
    "all of another file": lambda ours, others: others,
    "an empty last one": lambda ours, others: [*ours[:-1], ours[-1][: sealed.TAG]],
    "none": lambda ours, others: [],
}


@pytest.mark.parametrize("how", MOVED)
def test_chunks_that_are_not_in_their_place_are_found(how: str) -> None:
    """Those of the other file were made with the same key."""
    head, ours = parts(seal(secrets.token_bytes(4 * 32)))
    _, others = parts(seal(secrets.token_bytes(4 * 32)))
    with pytest.raises(BadBackup):
        read(head + b"".join(MOVED[how](ours, others)))


def test_a_last_chunk_that_is_full_does_not_pass_for_another() -> None:
    """A file cut between chunks is not one that ends there."""
    head, chunks = parts(seal(secrets.token_bytes(64)))
    assert [len(chunk) for chunk in chunks] == [48, 48]
    with pytest.raises(BadBackup, match="not authentic"):
        read(head + chunks[0])


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b" 1 one ", b" 1 two ", "not authentic: it was changed, or the key two here is not the one"),
        (b" 1 one ", b" 1 six ", "encrypted with the key six, which is not in the file of BACKUP_KEY_FILE"),
        (b" 1 one ", b" 2 one ", "newer"),
        (b" 1 one ", b" 01 one ", "not authentic"),
        (b" 1 one ", b" 1  one ", "foreign"),
        (b" 1 one ", b" 1 ../one ", "foreign"),
        (b"\n", b"\n\n", "not authentic"),
        (b"\n", b"0\n", "foreign"),
    ],
)
def test_a_changed_first_line_decrypts_nothing(old: bytes, new: bytes, reason: str) -> None:
    data = seal(b"some text")
    with pytest.raises(BadBackup, match=reason):
        read(data.replace(old, new, 1), ONE | TWO)


def test_a_first_line_without_end_is_not_read_to_the_end() -> None:
    with pytest.raises(BadBackup, match="foreign"):
        read(b"onesource-encrypted " + bytes(10**6))


def test_the_first_key_encrypts_and_all_decrypt() -> None:
    before = seal(b"before", ONE)
    after = seal(b"after", TWO | ONE)
    assert (read(before, TWO | ONE), read(after, TWO | ONE), read(after, TWO)) == (b"before", b"after", b"after")


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ({}, "encrypted with the key one: set BACKUP_KEY_FILE to the file that has it"),
        (TWO, "encrypted with the key one, which is not in the file of BACKUP_KEY_FILE"),
        ({"one": TWO["two"]}, "not authentic: it was changed, or the key one here is not the one that encrypted it"),
    ],
)
def test_without_its_key_it_is_refused_by_the_name_of_the_key(known: Keys, reason: str) -> None:
    with pytest.raises(BadBackup, match=reason):
        read(seal(b"some text"), known)


def test_the_same_text_is_never_encrypted_alike() -> None:
    one, other = parts(seal(bytes(100)))[1], parts(seal(bytes(100)))[1]
    assert len({*one, *other}) == len(one) + len(other)


# --- The file with the keys ------------------------------------------------------------------------

HEX = "0123456789abcdef" * 4


@pytest.fixture
def path(tmp_path: Path, settings: Settings) -> Path:
    """The file that the variable names."""
    path = tmp_path / "backup.keys"
    path.touch(0o600)
    settings.BACKUP_KEY_FILE = str(path)
    return path


@pytest.mark.parametrize("end", ["", "\n"])
def test_keys_are_read_in_their_order(path: Path, end: str) -> None:
    path.write_text(f"2026-12:{HEX}\n2026-11:{HEX[::-1]}{end}")
    assert list(keys.known().items()) == [("2026-12", bytes.fromhex(HEX)), ("2026-11", bytes.fromhex(HEX[::-1]))]


def test_without_the_variable_there_are_none(settings: Settings) -> None:
    settings.BACKUP_KEY_FILE = ""
    assert keys.known() == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line 1 must look like id:key"),
        ("\n", "line 1 must look like"),
        (HEX, "line 1 must look like"),
        (f"one:{HEX}\n\n", "line 2 must look like"),
        (f"one:{HEX}\ntwo:{HEX[:-1]}", "line 2 must look like"),
        (f"one:{HEX}0", "line 1 must look like"),
        (f"one:{HEX.upper()}", "line 1 must look like"),
        (f" one:{HEX}", "line 1 must look like"),
        (f"one:{HEX} ", "line 1 must look like"),
        (f"one:{HEX}\r\n", "line 1 must look like"),
        (f"../one:{HEX}", "line 1 must look like"),
        (f"{'x' * 33}:{HEX}", "line 1 must look like"),
        (f"one:{HEX}\none:{HEX[::-1]}", "line 2 has the id of a line before it"),
        (f"one:{'01' * 32}", "the key of line 1 is not random"),
        (f"one:{HEX}\nà:{HEX}", "it is no ASCII text"),
        ("x" * 20_000, "it has more than 16,384 bytes"),
    ],
)
def test_a_bad_file_is_refused_and_nothing_of_it_is_told(path: Path, text: str, reason: str) -> None:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadKeys) as raised:
        keys.known()
    assert str(raised.value).startswith(f"BACKUP_KEY_FILE is not usable: {path}: {reason}")
    assert HEX[:8] not in str(raised.value)


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o644, 0o666])
def test_a_file_that_others_may_use_is_refused(path: Path, mode: int) -> None:
    path.write_text(f"one:{HEX}")
    path.chmod(mode)
    with pytest.raises(BadKeys, match=r"every user of this machine may use it; take that away with chmod o-rwx"):
        keys.known()


def test_what_is_no_file_is_refused(path: Path, settings: Settings) -> None:
    settings.BACKUP_KEY_FILE = str(path.parent)
    with pytest.raises(BadKeys, match="Is a directory"):
        keys.known()
    settings.BACKUP_KEY_FILE = "/dev/null"
    with pytest.raises(BadKeys, match="it is no file"):
        keys.known()
    settings.BACKUP_KEY_FILE = str(path / "below")
    with pytest.raises(BadKeys, match="Not a directory"):
        keys.known()
    settings.BACKUP_KEY_FILE = f"{path}.missing"
    with pytest.raises(BadKeys, match="No such file"):
        keys.known()
