"""What a file says of its sizes is judged before anything of that size is allocated."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetl.base.errors import BundleError, CertifyError, EdgetlError
from edgetl.base.storage import read_json, sha256_bytes, sha256_file, write_sealed
from edgetl.core.bundle import GOLDEN, MANIFEST, PREDICTIONS, REFERENCE
from edgetl.core.npz import MOST_MEMBERS, read_npz

Write = Callable[[Path], None]


def archive(path: Path, members: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", how) as made:
        for name, content in members.items():
            made.writestr(name, content)


def array(shape: tuple[int, ...], content: bytes = b"", descr: str = "<f4") -> bytes:
    """An .npy member that says to be of a shape, whatever it holds."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue() + content


def zeros(path: Path) -> None:
    """200 MB in 200 KB."""
    archive(path, {"in.image.npy": array((50_000_000,), bytes(200_000_000))})


def announced(path: Path) -> None:
    """A header that announces 4 TB."""
    archive(path, {"in.image.npy": array((1 << 40,), b"1234")})


def many(path: Path) -> None:
    archive(path, {f"in.{index}.npy": array((1,), b"1234") for index in range(MOST_MEMBERS + 1)})


def twice(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("in.image.npy", array((1,), b"1234"))
        with pytest.warns(UserWarning, match="Duplicate"):
            made.writestr("in.image.npy", array((1,), b"1234"))


def understated(path: Path) -> None:
    """Members that unpack to more than they say."""
    archive(path, {"in.image.npy": array((2_500_000,), bytes(10_000_000))})
    content, small = path.read_bytes(), struct.pack("<I", 100)
    size = struct.pack("<I", len(array((2_500_000,))) + 10_000_000)
    assert content.count(size) == 2
    path.write_bytes(content.replace(size, small))


def objects(path: Path) -> None:
    np.savez(path, **{"in.image": np.array([{"a": 1}], dtype=object)})


def squeezed(path: Path) -> None:
    archive(path, {"in.image.npy": array((1,), b"1234")}, zipfile.ZIP_LZMA)


def nothing(path: Path) -> None:
    """Texts without characters: any number of them has no bytes."""
    archive(path, {"in.image.npy": array((1 << 40,), descr="<U0")})


BOMBS = (zeros, announced, many, twice, understated, objects, squeezed, nothing)


@pytest.mark.parametrize("write", BOMBS, ids=lambda write: write.__name__)
def test_what_unpacks_to_more_than_it_should_is_refused(tmp_path: Path, write: Write) -> None:
    write(tmp_path / "a.npz")
    for source in (tmp_path / "a.npz", (tmp_path / "a.npz").read_bytes()):
        with pytest.raises(ValueError, match=r".+"):
            read_npz(source)


def test_what_is_honest_is_read_as_numpy_reads_it(tmp_path: Path) -> None:
    arrays = {
        "floats": np.linspace(0, 1, 12).reshape(3, 4),
        "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "texts": np.array(["a", "bcd"]),
        "none": np.zeros((0, 3), np.uint8),
        "one": np.array(True),
        "large end first": np.arange(3, dtype=">i2"),
        "half": np.ones((2, 2), np.float16),
        # As compressible as a class that is right everywhere.
        "equal": np.zeros(5_000_000, np.int32),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        read = read_npz(tmp_path / "a.npz")
        assert list(read) == list(arrays)
        for name, values in arrays.items():
            np.testing.assert_array_equal(read[name], values)
        assert list(read_npz(tmp_path / "a.npz", names={"texts", "gone"})) == ["texts"]


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle."""
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    return tmp_path / "bundle"


def planted(bundle: Path, name: str, write: Write) -> None:
    """Put another file into a bundle, all hashes and seals made to fit."""
    write(bundle / name)
    if name == PREDICTIONS:
        body = (bundle / name).read_bytes() + b"sha256:"
        (bundle / name).write_bytes(body + sha256_bytes(body).encode())
    manifest = read_json(bundle / MANIFEST)
    if name in manifest["files"]:
        manifest["files"][name] = {"sha256": sha256_file(bundle / name), "bytes": (bundle / name).stat().st_size}
    write_sealed(bundle / MANIFEST, manifest)
    (bundle / "bom.cdx.json").unlink(missing_ok=True)
    digest = read_json(bundle / MANIFEST)["digest"]
    for record in ("certificate.json", "bench.json"):
        changed = {**read_json(bundle / record), "manifest": digest}
        if record == "certificate.json":
            changed["hashes"] |= {"predictions": sha256_file(bundle / PREDICTIONS), "manifest": digest}
        write_sealed(bundle / record, changed)


ASK = "from edgetl.cli import main; main()"


@pytest.mark.parametrize("name", [GOLDEN, REFERENCE, PREDICTIONS])
def test_a_bundle_that_would_fill_the_memory_is_refused_unread(bundle: Path, tmp_path: Path, name: str) -> None:
    planted(bundle, name, zeros)
    verb = {
        GOLDEN: ["-m", "edgetl.runtime", "selftest", str(bundle)],
        REFERENCE: ["-c", ASK, "verify", str(bundle), "--predictions", str(tmp_path / "answers.npz")],
        PREDICTIONS: ["-c", ASK, "verify", str(bundle), "--check"],
    }[name]
    samples = [row[2] for row in read_json(bundle / "splits.json")["samples"] if row[4] == "certify"]
    np.savez(tmp_path / "answers.npz", logits=np.zeros((len(samples), 3), np.float32), sha256=np.array(samples))
    done = subprocess.run([sys.executable, *verb], capture_output=True, text=True, check=False)
    assert done.returncode in (2, 3), done.stderr
    assert "would unpack to" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_the_same_in_python(bundle: Path) -> None:
    import edgetl

    planted(bundle, PREDICTIONS, zeros)
    assert "would unpack to" in str(edgetl.check(bundle))
    with pytest.raises(CertifyError, match="would unpack to"):
        edgetl.verify(bundle)


def test_a_record_of_a_size_that_no_record_has(tmp_path: Path) -> None:
    with (tmp_path / "manifest.json").open("wb") as stream:
        stream.truncate(513 << 20)
    for error in (BundleError, EdgetlError):
        with pytest.raises(error, match="larger than 512 MiB"):
            read_json(tmp_path / "manifest.json", error)


def test_an_own_answers_file_is_judged_too(bundle: Path, tmp_path: Path, edgetl: Callable[..., Any]) -> None:
    zeros(tmp_path / "answers.npz")
    done = edgetl("verify", bundle, "--predictions", tmp_path / "answers.npz")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "would unpack to" in done.stderr
