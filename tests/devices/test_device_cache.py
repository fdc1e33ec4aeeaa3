"""What a device keeps of what was sent heals itself; what is in charge there shares nothing with it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import edgetl
from edgetl import runtime
from edgetl.core.bundle import Bundle, load_bundle
from edgetl.devices import Device, add_device, predict
from edgetl.devices.connection import disconnect
from tests.devices.conftest import variant
from tests.devices.real_sshd import Sshd


@pytest.fixture
def board(sshd: Sshd, own_home: Path) -> Iterator[Device]:
    """A device behind a real sshd on which nothing is yet."""
    disconnect()
    for name in (".cache", ".local"):
        shutil.rmtree(sshd.home / name, ignore_errors=True)
    yield add_device("board", sshd.url(sshd.client("good")))
    disconnect()


def flip(files: list[Path]) -> None:
    """What a worn card does: one byte in place, the same inode and size. Names of one inode are damaged together."""
    for file in {file.stat().st_ino: file for file in files if file.stat().st_size}.values():
        flip_one(file)


def flip_one(file: Path) -> None:
    before = file.stat()
    file.chmod(0o644)
    with file.open("r+b") as stream:
        stream.seek(before.st_size // 2)
        (byte,) = stream.read(1)
        stream.seek(before.st_size // 2)
        stream.write(bytes([byte ^ 1]))
    file.chmod(before.st_mode)


def cached(sshd: Sshd, *kinds: str) -> list[Path]:
    cache = sshd.home / ".cache/edgetl"
    files = [file for kind in kinds for file in sorted((cache / kind).rglob("*")) if file.is_file()]
    return [file for file in files if "__pycache__" not in file.parts]


@pytest.mark.parametrize("kind", ["files", "bundles", "code"])
def test_a_damaged_cache_heals_itself(
    board: Device, host_bundle: Bundle, jpegs: list[Path], sshd: Sshd, kind: str
) -> None:
    expected = runtime.predict(host_bundle, jpegs[:2], threads=1)["logits"]
    assert np.array_equal(predict(board, host_bundle, jpegs[:2], threads=1)["logits"], expected)
    before = {file.relative_to(sshd.home): file.read_bytes() for file in cached(sshd, "files", "bundles", "code")}
    flip(cached(sshd, kind))
    assert np.array_equal(predict(board, host_bundle, jpegs[:2], threads=1)["logits"], expected)
    after = {file.relative_to(sshd.home): file.read_bytes() for file in cached(sshd, "files", "bundles", "code")}
    assert after == before


def test_files_that_are_missing_from_a_folder_or_more_than_belong(
    board: Device, host_bundle: Bundle, jpegs: list[Path], sshd: Sshd
) -> None:
    predict(board, host_bundle, jpegs[:1])
    (folder,) = (sshd.home / ".cache/edgetl/bundles").iterdir()
    (folder / "labels.json").unlink()
    (folder / "model/more").write_text("x")
    (sshd.home / ".cache/edgetl/files" / "x").mkdir()
    assert predict(board, host_bundle, jpegs[:1])["logits"].shape[0] == 1
    assert (folder / "labels.json").is_file()
    assert not (folder / "model/more").exists()


def test_a_release_is_deployed_again_over_a_damaged_cache(
    board: Device, host_bundle: Bundle, sshd: Sshd, tmp_path: Path
) -> None:
    """As it was: a flipped byte of the cache made a bundle undeployable for ever, and damaged what was in charge."""
    current = sshd.home / ".local/share/edgetl/camera/current"
    assert edgetl.deploy(host_bundle, ["board"], name="camera", force=True)[0].state == "deployed"
    shared = {file.stat().st_ino for file in cached(sshd, "files", "bundles")}
    assert not shared & {file.stat().st_ino for file in current.resolve().rglob("*") if file.is_file()}
    flip(cached(sshd, "files", "bundles"))
    assert load_bundle(current).digest == host_bundle.digest, "what is in charge is whole"
    newer = variant(host_bundle, tmp_path / "newer")
    assert edgetl.deploy(newer, ["board"], name="camera", force=True)[0].state == "deployed"
    assert edgetl.deploy(host_bundle, ["board"], name="camera", force=True)[0].state == "deployed"
    assert load_bundle(current).digest == host_bundle.digest
