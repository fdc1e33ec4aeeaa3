"""Bytes on disk: whole or absent, whoever kills the writer, and no edit goes unseen."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edgetl.base.errors import BundleError, EdgetlError
from edgetl.base.storage import (
    canonical_json,
    is_sealed,
    new_folder,
    parse_json,
    parse_toml,
    read_json,
    read_sealed,
    sealed,
    sha256_bytes,
    sha256_file,
    sha256_json,
    write_bytes,
    write_json,
    write_sealed,
)

ROOT = Path(__file__).resolve().parents[1]
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)
RECORDS = st.dictionaries(st.sampled_from(["accuracy", "n", "name", "ci", "größe"]), JSON, min_size=1)


@given(value=JSON)
def test_canonical_json_is_read_back_and_does_not_know_the_order(value: Any) -> None:
    assert json.loads(canonical_json(value)) == value

    def turned(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: turned(item[key]) for key in reversed(list(item))}
        return [turned(inner) for inner in item] if isinstance(item, list) else item

    assert canonical_json(turned(value)) == canonical_json(value)
    assert sha256_json(value) == sha256_bytes(canonical_json(value))


def test_canonical_json_refuses_what_json_cannot_say() -> None:
    for value in (math.nan, math.inf):
        with pytest.raises(ValueError, match="JSON"):
            canonical_json({"x": value})


def test_sha256_of_known_bytes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_bytes(b"abc") == sha256_file(tmp_path / "abc") == known


@given(record=RECORDS, changed=RECORDS)
def test_a_seal_holds_for_one_record_only(record: dict[str, Any], changed: dict[str, Any]) -> None:
    closed = sealed(record)
    assert is_sealed(closed)
    assert is_sealed(sealed(closed))
    assert sealed(closed) == closed
    assume(canonical_json(record) != canonical_json(changed))
    assert not is_sealed({**changed, "digest": closed["digest"]})
    assert not is_sealed(record) or "digest" in record


@given(record=RECORDS, data=st.data())
@settings(deadline=None, max_examples=200)
def test_any_changed_byte_of_a_sealed_file_shows(
    tmp_path_factory: pytest.TempPathFactory, record: dict[str, Any], data: st.DataObject
) -> None:
    file = tmp_path_factory.getbasetemp() / "record.json"
    write_sealed(file, record)
    assert read_sealed(file) == sealed(record)
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[place]))
    file.write_bytes(content)
    with pytest.raises(EdgetlError, match=r"record\.json") as caught:
        read_sealed(file)
    assert "\n" not in str(caught.value)


def test_spelling_and_blanks_are_part_of_a_sealed_file(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    write_sealed(file, {"p": 1e-05, "q": [1, 2]})
    whole = file.read_text()
    for before, after in [("1e-05", "1E-05"), ("1e-05", "0.00001"), ("\n", "\r\n"), (" 1,", " 1 ,"), ("}\n", "}")]:
        assert before in whole
        file.write_text(whole.replace(before, after), newline="")
        with pytest.raises(BundleError, match="altered"):
            read_sealed(file, BundleError)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b'{"a": NaN, "digest": "0"}',
        b'{"a": "\\ud800", "digest": "0"}',
        b"\xff\xfe",
        b"[" * 99999,
    ],
)
def test_what_is_no_record_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "record.json"
    file.write_bytes(content)
    with pytest.raises(BundleError) as caught:
        read_sealed(file, BundleError)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_reading_what_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.json", tmp_path):
        with pytest.raises(BundleError, match="cannot read"):
            read_json(path, BundleError)


# Whole or absent


def test_write_bytes_replaces_and_makes_folders(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b" / "f.bin"
    write_bytes(file, b"one")
    write_bytes(file, b"two" * 100_000)
    assert file.read_bytes() == b"two" * 100_000
    assert [p.name for p in file.parent.iterdir()] == ["f.bin"]
    write_json(file, {"größe": 1})
    assert "größe" in file.read_text(encoding="utf-8")


def test_a_value_that_is_no_json_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "f.json"
    write_json(file, [1])
    with pytest.raises(ValueError, match="JSON"):
        write_json(file, [math.nan])
    assert read_json(file) == [1]
    assert len(list(tmp_path.iterdir())) == 1


def test_new_folder_is_whole(tmp_path: Path) -> None:
    with new_folder(tmp_path / "deep" / "out") as folder:
        assert not (tmp_path / "deep" / "out").exists()
        (folder / "sub").mkdir()
        (folder / "sub" / "f").write_bytes(b"1")
    assert (tmp_path / "deep" / "out" / "sub" / "f").read_bytes() == b"1"
    with new_folder(tmp_path / "deep" / "out") as folder:
        (folder / "g").touch()
    assert [p.name for p in (tmp_path / "deep" / "out").iterdir()] == ["g"], "the old content is gone"
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]


@pytest.mark.parametrize("error", [RuntimeError("x"), KeyboardInterrupt(), FileNotFoundError(2, "gone", "/elsewhere")])
def test_new_folder_leaves_nothing_when_its_body_fails(tmp_path: Path, error: BaseException) -> None:
    with new_folder(tmp_path / "out") as folder:
        (folder / "old").touch()

    def fill() -> None:
        with new_folder(tmp_path / "out") as folder:
            (folder / "half").touch()
            raise error

    with pytest.raises(type(error)):
        fill()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["old"], "what stood there still stands"


def test_a_file_in_the_way_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")

    def fill() -> None:
        with new_folder(tmp_path / "out") as folder:
            (folder / "f").touch()

    with pytest.raises(EdgetlError, match="cannot write"):
        fill()
    assert (tmp_path / "out").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


WRITER = """
import sys
from pathlib import Path
from edgetl.base.storage import new_folder, write_bytes
out, what = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
for turn in range(10**6):
    fill = bytes([turn % 256]) * 3_000_000
    if what == "file":
        write_bytes(out / "f", fill)
    else:
        with new_folder(out / "d") as folder:
            for index in range(6):
                (folder / str(index)).write_bytes(fill[:400_000])
"""


@pytest.mark.parametrize("what", ["file", "folder"])
def test_sigkill_leaves_all_or_nothing(tmp_path: Path, what: str) -> None:
    for turn in range(8):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), what], stdout=subprocess.PIPE, cwd=ROOT)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(0.011 * turn)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
        if (tmp_path / "f").exists():
            content = (tmp_path / "f").read_bytes()
            assert len(content) == 3_000_000
            assert len(set(content)) == 1
        if (tmp_path / "d").exists():
            files = sorted((tmp_path / "d").iterdir())
            assert [f.name for f in files] == [str(index) for index in range(6)]
            assert len({f.read_bytes() for f in files}) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, or a skip."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"this machine does not let root mount a tmpfs ({made.stderr.strip()})")
    yield folder
    subprocess.run(["umount", "-l", folder], check=False)


def refused(path: Path, size: int) -> None:
    with pytest.raises(EdgetlError, match="cannot write") as caught:
        write_bytes(path / "sub" / "f", bytes(size))
    assert "\n" not in str(caught.value)

    def fill() -> None:
        with new_folder(path / "d") as folder:
            (folder / "f").write_bytes(bytes(size))

    with pytest.raises(EdgetlError, match="cannot write") as caught:
        fill()
    assert "\n" not in str(caught.value)


def test_a_full_disk(small_disk: Path) -> None:
    write_bytes(small_disk / "sub" / "small", b"fits")
    refused(small_disk, 1 << 20)
    assert {p.name for p in small_disk.rglob("*")} == {"sub", "small"}


def test_a_read_only_disk(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True, capture_output=True)
    refused(small_disk, 10)


def test_a_folder_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused(tmp_path / "file", 10)


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc, where nobody may write")
def test_a_folder_where_nobody_may_write() -> None:
    refused(Path("/proc/self/fd/none"), 10)


@pytest.mark.parametrize(
    "text",
    [
        '{"a": "\\ud800"}',
        '{"\\uDFFF": 1}',
        "[" * 100_000 + "]" * 100_000,
        "",
        "[NaN]",
        "[-Infinity]",
        "[1e999]",
        "{",
        "1" * 5000,
        b"\xed\xa0\x80",
        b"\xff\xfe1\x00",
    ],
    ids=[
        "surrogate",
        "surrogate key",
        "deep",
        "empty",
        "nan",
        "infinite",
        "too large",
        "half",
        "long number",
        "raw surrogate",
        "utf-16",
    ],
)
def test_what_is_no_json_that_a_file_can_hold(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_json(text)


def test_json_that_a_file_can_hold() -> None:
    assert parse_json('{"pair": "\\ud83d\\ude00", "é": "\\\\ud800"}') == {"pair": "😀", "é": "\\ud800"}


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a", "a = 1\na = 2"], ids=["deep", "half", "twice"])
def test_what_is_no_toml(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_toml(text)
