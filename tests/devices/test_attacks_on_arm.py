"""The attacks of ``docs/untrusted.md`` on an emulated Arm device: what runs there judges a bundle by itself.

Names, external tensors and signatures have theirs beside the tests of this machine. One Python there answers all.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from edgetl.base.storage import read_json, sha256_bytes, sha256_file, write_json
from edgetl.core.bundle import GOLDEN, LABELS, MANIFEST, PREPROCESS_FILE, Bundle
from edgetl.devices import Device
from edgetl.devices.emulated import EmulatedDevice
from edgetl.devices.payload import receiver_program
from edgetl.devices.rootfs import emulated_environment, emulated_python, read_marker
from tests.devices.conftest import variant
from tests.devices.forged import entry, forged, reseal
from tests.fuzzing.endings import DeviceEnd, objection
from tests.test_untrusted_sizes import announced, many, objects, squeezed, understated, zeros


@pytest.fixture(scope="module")
def python(emulated: Device) -> tuple[str, ...]:
    assert isinstance(emulated, EmulatedDevice)
    marker = read_marker(emulated.root)
    return tuple(emulated_python(emulated.root, marker["cpu"], marker["python"]))


@pytest.fixture(scope="module")
def there(python: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceEnd]:
    end = DeviceEnd(tmp_path_factory.mktemp("there"), python, emulated_environment())
    assert '"arch": "aarch64"' in end.ask("machine").out
    yield end
    end.close()


def refused(there: DeviceEnd, folder: Path, *, verb: str = "selftest", says: str = "") -> None:
    ended = there.ask(verb, folder, "--threads", "1")
    assert ended.refused, f"{ended}"
    assert not objection(ended), objection(ended)
    assert says in ended.err


def test_nothing_that_lies_in_a_bundle_is_run(there: DeviceEnd, bundle: Bundle, tmp_path: Path) -> None:
    """Scripts under the names of those that edgetl runs, and of modules that Python imports by itself."""
    folder, mark = forged(bundle, tmp_path / "forged"), tmp_path / "mark"
    names = ("build_engine.py", "build_engine.sh", "sitecustomize.py", "argparse.py", "json.py", "numpy.py")
    for place in (folder, folder / "model"):
        for name in names:
            (place / name).write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n")
    reseal(
        folder,
        lambda record: record["files"].update(
            {f"{place}{name}": entry(folder / place / name) for place in ("", "model/") for name in names}
        ),
    )
    assert there.ask("selftest", folder, "--threads", "1").status == 0
    assert there.ask("install", folder, "--name", "camera", "--threads", "1").status == 0
    assert not mark.exists()


@pytest.mark.parametrize("write", [zeros, announced, many, understated, objects, squeezed])
def test_what_would_fill_its_memory_is_refused(
    there: DeviceEnd, bundle: Bundle, tmp_path: Path, write: Callable[[Path], None]
) -> None:
    folder = forged(bundle, tmp_path / "forged")
    write(folder / GOLDEN)
    reseal(folder)
    refused(there, folder, says=GOLDEN)


def test_a_picture_that_would_fill_its_memory_is_refused(there: DeviceEnd, bundle: Bundle, tmp_path: Path) -> None:
    """A few kilobytes that say to be 400 megapixels."""
    Image.new("L", (20_000, 20_000)).save(tmp_path / "large.png")
    (tmp_path / "list").write_text(f"{tmp_path / 'large.png'}\n")
    options = ("--samples", tmp_path / "list", "--out", tmp_path / "out.npz", "--threads", "1")
    ended = there.ask("predict", bundle.path, *options)
    assert ended.refused, f"{ended}"
    assert not objection(ended), objection(ended)
    assert "large.png" in ended.err
    assert not (tmp_path / "out.npz").exists()


def test_other_labels_and_another_preparation_show_in_its_selftest(
    there: DeviceEnd, bundle: Bundle, tmp_path: Path
) -> None:
    whole = variant(bundle, tmp_path / "whole")
    assert there.ask("selftest", whole.path, "--threads", "1").status == 0
    wrong = variant(bundle, tmp_path / "wrong", wrong=True)
    tested = json.loads(there.ask("selftest", wrong.path, "--threads", "1").out)
    assert not tested["passed"]
    refused(there, wrong.path, verb="install", says="the self-test failed")


@pytest.mark.parametrize("name", [LABELS, PREPROCESS_FILE, MANIFEST])
def test_no_control_character_reaches_its_terminal(there: DeviceEnd, bundle: Bundle, tmp_path: Path, name: str) -> None:
    folder = forged(bundle, tmp_path / "forged")
    harm = "\x1b]0;gone\x07\x1b[2J"
    if name == MANIFEST:
        reseal(folder, lambda record: record["target"].update(backend=harm))
    else:
        record = read_json(folder / name)
        write_json(folder / name, [harm, harm] if name == LABELS else {**record, "mode": harm, "channels": harm})
        reseal(folder)
    (tmp_path / "list").write_text("picture.png\n")
    options = ("--samples", tmp_path / "list", "--out", tmp_path / "out.npz", "--threads", "1")
    ended = there.ask("selftest" if name == MANIFEST else "predict", folder, *(() if name == MANIFEST else options))
    assert ended.refused, f"{ended}"
    assert not objection(ended), objection(ended)
    assert "\x1b" not in ended.err + ended.out


def test_its_cache_heals_itself(python: tuple[str, ...], tmp_path: Path) -> None:
    """A content that was damaged on the device is removed when it is looked for, and asked for again."""
    cache = tmp_path / "cache"
    for name in ("files", "bundles", "code"):
        (cache / name).mkdir(parents=True)
    contents = {sha256_bytes(data): data for data in (b"one", b"two", b"three")}
    for name, data in contents.items():
        (cache / "files" / name).write_bytes(data)
    damaged = sorted(contents)[1]
    (cache / "files" / damaged).write_bytes(b"x" + contents[damaged][1:])
    asked = json.dumps({"path": "", "files": {name: name for name in contents}})
    command = [*python, "-I", "-S", "-c", receiver_program(), str(cache), "look"]
    done = subprocess.run(
        command, input=asked, text=True, capture_output=True, check=False, env=emulated_environment(), cwd=tmp_path
    )
    assert done.stdout.split() == [damaged], done.stderr
    assert not (cache / "files" / damaged).exists()
    assert {path.name for path in (cache / "files").iterdir()} == set(contents) - {damaged}
    outside = json.dumps({"path": f"bundles/{'0' * 64}", "files": {"x/../../../../.bashrc": damaged}})
    done = subprocess.run(
        command, input=outside, text=True, capture_output=True, check=False, env=emulated_environment(), cwd=tmp_path
    )
    assert done.returncode != 0
    assert len(done.stderr.splitlines()) == 1
    assert "refused" in done.stderr


def test_what_is_in_charge_there_shares_nothing_with_what_came(
    there: DeviceEnd, bundle: Bundle, tmp_path: Path
) -> None:
    """A byte that is turned in the place from which it was installed damages no release."""
    came = variant(bundle, tmp_path / "came")
    installed = there.ask("install", came.path, "--name", "garden", "--threads", "1")
    assert installed.status == 0, installed.err
    model = came.artifact().path
    release = Path(json.loads(installed.out)["path"])
    held = release / model.relative_to(came.path)
    before = sha256_file(held)
    with model.open("r+b") as stream:
        stream.write(b"damage")
    assert sha256_file(held) == before
    refused(there, came.path, verb="install", says="altered or damaged")
    assert there.ask("selftest", release, "--threads", "1").status == 0
    shutil.rmtree(came.path)
    assert sha256_file(held) == before
