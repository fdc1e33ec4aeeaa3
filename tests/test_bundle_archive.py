"""A bundle as one file: there and back, and archives that mean harm."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import stat
import struct
import subprocess
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import edgetl
from edgetl.base.errors import BundleError, EdgetlError
from edgetl.base.names import check_together, objection
from edgetl.base.stored_zip import MOST_FILES, copy_content, read_entries, write_archive
from edgetl.core.bundle import MANIFEST, RECORDS, load_bundle
from edgetl.core.bundle_archive import pack, unpack
from tests.records import whole_bundle

Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden bundle, with every record."""
    return whole_bundle(tmp_path_factory.mktemp("whole") / "bundle")


@pytest.fixture(scope="module")
def packed(bundle: Path) -> Path:
    return pack(bundle, bundle.parent / "bundle.zip")


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(archive: bytes | Path, place: Path, key: str | None = None) -> str:
    """The one line with which an archive is refused; nothing of it is left anywhere in ``place``."""
    place.mkdir(exist_ok=True)
    file = archive
    if isinstance(archive, bytes):
        file = place / "given.zip"
        file.write_bytes(archive)
    before = sorted(place.parent.rglob("*"))
    with pytest.raises(EdgetlError) as caught:
        unpack(file, place / "out", key)
    assert sorted(place.parent.rglob("*")) == before
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_there_and_back(bundle: Path, packed: Path, tmp_path: Path) -> None:
    made = unpack(packed, tmp_path / "there" / "bundle")
    assert made.path == tmp_path / "there" / "bundle"
    assert contents(made.path) == contents(bundle)
    assert set(RECORDS[:2]) <= set(contents(made.path))
    assert made.digest == load_bundle(bundle).digest
    assert made.certificate == load_bundle(made.path).certificate
    assert edgetl.check(made.path) is None


def test_the_same_bundle_gives_the_same_bytes(bundle: Path, packed: Path, tmp_path: Path) -> None:
    """Whatever its files' times and modes are, and in whatever order the system lists them."""
    copy = tmp_path / "copy"
    for name in sorted(contents(bundle), reverse=True):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle / name, copy / name)
        (copy / name).chmod(0o600)
        os.utime(copy / name, (1, 1))
    assert pack(copy, tmp_path / "again.zip").read_bytes() == packed.read_bytes()
    assert pack(unpack(packed, tmp_path / "out"), tmp_path / "again.zip").read_bytes() == packed.read_bytes()


def test_zip_programs_open_it(bundle: Path, packed: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(packed) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == contents(bundle)
    if shutil.which("unzip"):
        subprocess.run(["unzip", "-q", str(packed), "-d", str(tmp_path / "by")], check=True)
        assert contents(tmp_path / "by") == contents(bundle)


def test_an_empty_folder_is_filled_and_a_full_one_is_not(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert unpack(packed, tmp_path / "empty").path == tmp_path / "empty"
    before = contents(tmp_path / "empty")
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("empty", "file", "link"):
        with pytest.raises(EdgetlError, match="is there already: choose another --out"):
            unpack(packed, tmp_path / name)
    assert contents(tmp_path / "empty") == before
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "file", "link"]


def test_what_cannot_be_packed(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    with pytest.raises(EdgetlError, match="lies inside the bundle"):
        pack(copy, copy / "model" / "all.zip")
    with pytest.raises(EdgetlError, match="is a folder: name a file"):
        pack(copy, tmp_path)
    (copy / "more").symlink_to("/etc/hostname")
    with pytest.raises(BundleError, match="'more' is no file: remove it"):
        pack(copy, tmp_path / "all.zip")
    (copy / "more").unlink()
    (copy / "Labels.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BundleError, match="are one on some systems"):
        pack(copy, tmp_path / "all.zip")
    (copy / "Labels.json").unlink()
    (copy / "labels.json").write_text("[]", encoding="utf-8")
    with pytest.raises(BundleError, match="altered"):
        pack(copy, tmp_path / "all.zip")
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


# ---------------------------------------------------------------------------------------------- archives that mean harm


class Zip:
    """A zip archive made by hand: each header as it should be, but for what is changed."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def bytes(
        self,
        local: dict[str, dict[str, int | bytes]] | None = None,
        central: dict[str, dict[str, int | bytes]] | None = None,
        end: dict[str, int | bytes] | None = None,
        order: list[str] | None = None,
        before: bytes = b"",
        between: bytes = b"",
    ) -> bytes:
        body, directory = bytearray(before), bytearray()
        for name in order or sorted(self.files):
            content = self.files[name]
            head: dict[str, Any] = {
                **{"flags": 0x800, "method": 0, "crc": zlib.crc32(content), "packed": len(content)},
                **{"size": len(content), "name": name.encode(), "extra": b"", "comment": b""},
                **{"mode": 0o100644, "offset": len(body), "content": content},
            }
            here, there = head | (local or {}).get(name, {}), head | (central or {}).get(name, {})
            sizes = (here["crc"], here["packed"], here["size"], len(here["name"]), len(here["extra"]))
            body += struct.pack("<4s5H3L2H", b"PK\3\4", 20, here["flags"], here["method"], 0, 33, *sizes)
            body += here["name"] + here["extra"] + here["content"]
            sizes = (there["crc"], there["packed"], there["size"], len(there["name"]), len(there["extra"]))
            behind = (len(there["comment"]), 0, 0, there["mode"] << 16, there["offset"])
            fixed = (0x314, 20, there["flags"], there["method"], 0, 33)
            directory += struct.pack("<4s6H3L5H2L", b"PK\1\2", *fixed, *sizes, *behind)
            directory += there["name"] + there["extra"] + there["comment"]
        last: dict[str, Any] = {"count": len(self.files), "size": len(directory), "start": len(body + between)}
        last = {"disk": 0, "comment": b"", "behind": b"", **last, **(end or {})}
        said = (last["disk"], 0, last["count"], last["count"], last["size"], last["start"], len(last["comment"]))
        return bytes(
            body + between + directory + struct.pack("<4s4H2LH", b"PK\5\6", *said) + last["comment"] + last["behind"]
        )


def changed(name: str, /, **values: int | bytes) -> Callable[[Zip], bytes]:
    """In both headers of a file."""
    return lambda made: made.bytes({name: dict(values)}, {name: dict(values)})


def more(name: str, content: bytes = b"x", /, **values: int | bytes) -> Callable[[Zip], bytes]:
    """One file more."""
    held = values.pop("content", content)
    return lambda made: changed(name, content=held, **values)(Zip({**made.files, name: content}))


LABELS = "labels.json"
ZEROS = zlib.compress(bytes(50_000_000), 9)[2:-4]
#: A bomb, an escape or a lie → what is said of it.
HARM: dict[str, tuple[Callable[[Zip], bytes], str]] = {
    "a path that leads out": (more("../evil"), "leads out of the folder"),
    "a path that leads out later": (more("model/../../evil"), "leads out of the folder"),
    "an absolute path": (more("/tmp/evil"), "is absolute"),
    "a drive": (more("c:evil"), "holds one of the characters"),
    "backslashes": (more("..\\evil"), "holds one of the characters"),
    "a NUL": (more("labels.json\0.txt"), "not to be printed"),
    "a line break": (more("a\nb"), "not to be printed"),
    "an empty part": (more("model//x"), "empty or '.'"),
    "a folder's entry": (more("zoo/", b"", mode=0o40755), "is no plain file"),
    "a folder's entry as a file": (more("zoo/", b""), "empty or '.'"),
    "a device of Windows": (more("model/AUX.txt"), "Windows' own devices"),
    "a port of Windows": (more("com1"), "Windows' own devices"),
    "a dot at the end": (more("labels.json."), "ends a part with a dot"),
    "a blank at the end": (more("model /x"), "ends a part with a dot or a blank"),
    "a long name": (more("x" * 300), "is too long"),
    "a name that is no UTF-8": (more("x", name=b"\xff\xfe"), "is no UTF-8"),
    "a symbolic link": (more("link", b"/etc/passwd", mode=stat.S_IFLNK | 0o777), "is no plain file"),
    "a device node": (more("null", b"", mode=stat.S_IFCHR | 0o666), "is no plain file"),
    "a pipe": (more("pipe", b"", mode=stat.S_IFIFO | 0o666), "is no plain file"),
    "a set-uid program": (more("tool", b"#!/bin/sh", mode=0o104755), "is no plain file"),
    "a hard link of Info-ZIP's": (more("hard", extra=struct.pack("<2HLH", 0x756E, 6, 0, 0)), "extra fields"),
    "case": (more("Labels.json"), "are one on some systems"),
    "case of a folder": (more("MODEL/x"), "are one on some systems"),
    "letters composed otherwise": (
        lambda made: Zip({**made.files, "\u00e9": b"", "e\u0301": b""}).bytes(),
        "are one on some systems",
    ),
    "a file that is another's folder": (more("labels.json/x"), "are one on some systems"),
    "the same name twice": (
        lambda made: Zip({**made.files, "labels.jsom": b"[]"}).bytes(
            {"labels.jsom": {"name": LABELS.encode()}}, {"labels.jsom": {"name": LABELS.encode()}}
        ),
        "one is there twice",
    ),
    "another order": (lambda made: made.bytes(order=sorted(made.files, reverse=True)), "in the order of their names"),
    "compressed": (changed(LABELS, method=8), "is compressed"),
    "a bomb": (more("zeros", b"x", method=8, packed=len(ZEROS), size=50_000_000, content=ZEROS), "is compressed"),
    "a bomb in its local header": (lambda made: made.bytes({LABELS: {"method": 8}}), "is compressed"),
    "encrypted": (changed(LABELS, flags=0x801), "is encrypted"),
    "a stream's sizes": (changed(LABELS, flags=0x808), "written in a stream"),
    "sizes that differ": (changed(LABELS, size=1 << 20), "has two sizes"),
    "a size that differs in the local header": (lambda made: made.bytes({LABELS: {"size": 3}}), "has two sizes"),
    "a size beyond the end": (changed(LABELS, size=1 << 31, packed=1 << 31), "reaches beyond its end"),
    "a greater size": (
        lambda made: made.bytes(central={LABELS: {"size": 99, "packed": 99}}),
        "they overlap",
    ),
    "another CRC": (lambda made: made.bytes({LABELS: {"crc": 1}}), "has two CRCs"),
    "a CRC that is not the content's": (changed(LABELS, crc=1), "is damaged"),
    "another name in the local header": (
        lambda made: made.bytes({LABELS: {"name": b"labels.jsox"}}),
        "of another form",
    ),
    "entries that overlap": (
        lambda made: made.bytes(central={LABELS: {"offset": 0}}),
        "they overlap",
    ),
    "zip64 sizes": (
        changed(LABELS, size=0xFFFFFFFF, packed=0xFFFFFFFF, extra=struct.pack("<2H2Q", 1, 16, 2, 2)),
        "extra fields",
    ),
    "zip64 sizes without the field": (changed(LABELS, size=0xFFFFFFFF, packed=0xFFFFFFFF), "reaches beyond"),
    "a zip64 count": (lambda made: made.bytes(end={"count": 0xFFFF}), "65,535 files"),
    "a zip64 start": (lambda made: made.bytes(end={"start": 0xFFFFFFFF}), "not where its end says"),
    "a zip64 end": (
        lambda made: made.bytes()[:-22] + b"PK\6\7" + bytes(16) + made.bytes()[-22:],
        "not where its end says",
    ),
    "many files": (lambda made: made.bytes(end={"count": MOST_FILES + 1}), f"{MOST_FILES + 1:,} files"),
    "fewer files than it says": (
        lambda made: made.bytes(end={"count": len(made.files) + 1}),
        "files and says",
    ),
    "a directory as large as can be": (lambda made: made.bytes(end={"size": 0xFFFFFF00}), "not where its end says"),
    "several disks": (lambda made: made.bytes(end={"disk": 1}), "not where its end says"),
    "a comment of a file": (lambda made: made.bytes(central={LABELS: {"comment": b"x"}}), "extra fields or a comment"),
    "a comment": (lambda made: made.bytes(end={"comment": b"hello"}), "does not end as a zip archive"),
    "data behind": (lambda made: made.bytes(end={"behind": b"x"}), "something follows it"),
    "an archive behind": (lambda made: made.bytes() + made.bytes(), "not where its end says"),
    "data before": (lambda made: made.bytes(before=b"#!/bin/sh\n"), "something lies between"),
    "data between": (lambda made: made.bytes(between=b"hidden"), "something lies between"),
    "truncated at its end": (lambda made: made.bytes()[:-1], "cut short"),
    "truncated in the middle": (lambda made: made.bytes()[:1000], "cut short"),
    "nothing": (lambda made: b"", "it has 0 bytes"),
    "no zip": (lambda made: b"tar" * 1000, "does not end as a zip archive"),
    "an empty archive": (lambda made: Zip({}).bytes(), "holds no manifest.json"),
    "no bundle": (lambda made: Zip({"readme.txt": b"hello"}).bytes(), "holds no manifest.json"),
    "a file less": (
        lambda made: Zip({k: v for k, v in made.files.items() if k != LABELS}).bytes(),
        "lacks labels.json",
    ),
    "another content": (lambda made: Zip({**made.files, LABELS: b"[]"}).bytes(), "labels.json is altered"),
}


def test_the_archives_made_by_hand_are_like_the_others(bundle: Path, packed: Path) -> None:
    """Otherwise the refusals below would say nothing."""
    assert Zip(contents(bundle)).bytes() == packed.read_bytes()


@pytest.mark.parametrize("harm", HARM)
def test_archives_that_mean_harm(bundle: Path, tmp_path: Path, harm: str) -> None:
    make, said = HARM[harm]
    message = refused(make(Zip(contents(bundle))), tmp_path / "here")
    assert said in message
    assert ".partial" not in message


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "nowhere", "."):
        assert "there is no archive" in refused(tmp_path / name, tmp_path / "here")
    assert "there is no archive" in refused(Path("/dev/zero"), tmp_path / "here")


def test_a_disk_that_is_full_leaves_nothing(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(1000, 999, 1))
    assert "0.0 MB are free" in refused(packed, tmp_path / "here")


@pytest.mark.parametrize("where", ["headers", "content"])
def test_any_byte_that_is_altered(packed: Path, tmp_path: Path, where: str) -> None:
    """Each is refused, wherever it is: a header is the one that fits, or none; a content has its CRC, and its hash."""
    whole, rng = packed.read_bytes(), random.Random(7)
    with packed.open("rb") as stream:
        entries = read_entries(stream)
    inside = {place for entry in entries for place in range(entry.start, entry.start + entry.size)}
    places = sorted(inside if where == "content" else set(range(len(whole))) - inside)
    for place in places if len(places) < 120 else rng.sample(places, 120):
        altered = bytearray(whole)
        altered[place] ^= 1 << rng.randrange(8)
        refused(bytes(altered), tmp_path / "here")


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=12)
FILES = st.dictionaries(NAMES.filter(lambda name: objection(name) is None), st.binary(max_size=3000), max_size=12)


def archived(files: dict[str, bytes], folder: Path) -> bytes:
    paths = {}
    for index, (name, content) in enumerate(files.items()):
        paths[name] = folder / str(index)
        paths[name].write_bytes(content)
    stream = io.BytesIO()
    write_archive(stream, paths)
    return stream.getvalue()


def restored(archive: bytes) -> dict[str, bytes]:
    stream, found = io.BytesIO(archive), {}
    for entry in read_entries(stream):
        content = bytearray()
        copy_content(stream, entry, content.extend)
        found[entry.name] = bytes(content)
    return found


@settings(max_examples=50, suppress_health_check=list(HealthCheck))
@given(files=FILES)
def test_files_there_and_back(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    archive = archived(files, tmp_path_factory.mktemp("files"))
    assert restored(archive) == files
    with zipfile.ZipFile(io.BytesIO(archive)) as by:
        assert {info.filename: by.read(info) for info in by.infolist()} == files


@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(files=FILES, data=st.data())
def test_altered_archives_of_any_files(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], data: st.DataObject
) -> None:
    """A byte changed, a piece taken out, put in or cut off: refused, or the same archive again."""
    archive = archived(files, tmp_path_factory.mktemp("files"))
    first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(archive))] * 2), "piece"))
    altered = archive[:first] + data.draw(st.binary(max_size=40), "instead") + archive[last:]
    if altered == archive:
        return
    with pytest.raises(ValueError, match=r"^[ -~]+$"):
        restored(altered)


@settings(max_examples=100)
@given(st.binary(max_size=400))
def test_anything_else_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"^[ -~]+$"):
        read_entries(io.BytesIO(content))


@pytest.mark.parametrize(
    ("names", "fine"),
    [
        (("a/b", "a/c", "b"), True),
        (("straße", "strasse"), False),
        (("a", "a/b"), False),
        (("a/b", "a"), False),
        (("a/b", "A/c"), False),
        (("x", "x"), False),
    ],
)
def test_names_that_are_one_on_some_system(names: tuple[str, ...], fine: bool) -> None:
    if fine:
        check_together(names)
    else:
        with pytest.raises(ValueError, match="are one on some systems"):
            check_together(names)


def test_names_that_only_begin_like_a_device() -> None:
    for name in ("console.json", "nullable/x", "com", "auxiliary", "lpt10", ".con"):
        assert objection(name) is None


def test_more_files_than_an_archive_holds(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(ValueError, match="an archive holds 1,000"):
        write_archive(io.BytesIO(), {str(i): tmp_path / "x" for i in range(MOST_FILES + 1)})


def test_signed_bundles(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="edgetl[sign] makes signatures")
    from tests.fuzzing.doors import private_key

    signed = Path(shutil.copytree(bundle, tmp_path / "signed"))
    key = edgetl.sign(signed, private_key(tmp_path / "key.pem"))
    archive = edgetl.pack(signed, tmp_path / "signed.zip")
    made = edgetl.unpack(archive, tmp_path / "out", key)
    assert made.signed_by == key
    assert contents(made.path) == contents(signed)
    other = edgetl.sign(signed, private_key(tmp_path / "other.pem"))
    assert "is not signed by the key" in refused(archive, tmp_path / "here", other)
    assert "is not signed" in refused(edgetl.pack(bundle, tmp_path / "plain.zip"), tmp_path / "here", key)
    for name, content in (("more.txt", b"x"), ("bench.json", b"{}"), (MANIFEST, b"{}")):
        forged = Zip({**contents(made.path), name: content}).bytes()
        assert "signed.zip" not in refused(forged, tmp_path / "here", key)


def test_the_command_line(bundle: Path, tmp_path: Path, edgetl: Cli) -> None:
    done = edgetl("pack", bundle, "--out", tmp_path / "bundle.zip", "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["bytes"]) == (0, (tmp_path / "bundle.zip").stat().st_size)
    done = edgetl("unpack", tmp_path / "bundle.zip", "--out", tmp_path / "out", "--json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["digest"]) == (0, load_bundle(bundle).digest)
    done = edgetl("verify", tmp_path / "out", "--check")
    assert done.returncode == 0, done.stdout
    for words in (
        ("unpack", tmp_path / "bundle.zip", "--out", tmp_path / "out"),
        ("unpack", tmp_path / "bundle.zip", "--out", tmp_path / "new", "--public-key", "0" * 64),
        ("pack", tmp_path, "--out", tmp_path / "x.zip"),
    ):
        done = edgetl(*words)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle.zip", "out"]
