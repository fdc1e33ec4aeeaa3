"""A device behind a real sshd on this machine."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from edgetl import runtime
from edgetl.base.errors import DeviceError
from edgetl.base.progress import silent
from edgetl.base.storage import sha256_file
from edgetl.core.bundle import Bundle, load_bundle
from edgetl.devices import Device, add_device, bench, find_device, predict, selftest, ssh
from edgetl.devices.connection import connect, disconnect, parse_url
from edgetl.devices.payload import receiver_program
from edgetl.devices.ssh import SshDevice
from edgetl.runtime.plan import Plan
from tests.devices.real_sshd import Heard, Sshd, wait_for

ROOT = Path(__file__).parents[2]


@pytest.fixture
def board(sshd: Sshd, own_home: Path) -> SshDevice:
    """A device added by its address, with an empty cache."""
    shutil.rmtree(sshd.home / ".cache", ignore_errors=True)
    disconnect()
    added = add_device("board", sshd.url(sshd.client("good")))
    assert isinstance(added, SshDevice)
    return added


def cache(sshd: Sshd) -> Path:
    return sshd.home / ".cache" / "edgetl"


def state(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p.relative_to(folder)): (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.rglob("*.*")}


def test_the_device_gives_the_same_logits_in_the_same_order(board: Device, bundle: Bundle, jpegs: list[Path]) -> None:
    order = [*reversed(jpegs), jpegs[0]]
    found = predict(board, bundle, order, threads=1)["logits"]
    np.testing.assert_array_equal(found, runtime.predict(bundle, order, threads=1)["logits"])
    assert board.executed == "device"


def test_nothing_is_sent_twice(
    board: Device, bundle: Bundle, jpegs: list[Path], sshd: Sshd, heard: Heard, tmp_path: Path
) -> None:
    told, listen = heard
    predict(board, bundle, jpegs[:4], progress=listen)
    sent = {name: cache(sshd) / name for name in ("files", "bundles", "code")}
    before = {name: state(folder) for name, folder in sent.items()}
    assert len([name for name in before["files"] if name.endswith(".jpg")]) == 4
    assert any("sending" in task for task, *_ in told)
    assert any("running" in task and done == total == 4 for task, done, total, _ in told)
    renamed = tmp_path / "same bytes.jpg"
    shutil.copy(jpegs[0], renamed)
    told.clear()
    predict(board, bundle, [*jpegs[:4], renamed], progress=listen)
    after = {name: state(folder) for name, folder in sent.items()}
    unchanged = {name: {k: v for k, v in after[name].items() if "__pycache__" not in k} for name in after}
    assert unchanged["files"] == before["files"]
    assert unchanged["bundles"] == before["bundles"]
    assert {k: v for k, v in before["code"].items() if "__pycache__" not in k} == unchanged["code"]
    assert not any("sending" in task for task, *_ in told)
    assert list((cache(sshd) / "calls").iterdir()) == []


def test_a_transfer_that_was_cut_goes_on_where_it_was_cut(
    board: SshDevice, bundle: Bundle, jpegs: list[Path], sshd: Sshd, heard: Heard
) -> None:
    """The stream ends in the middle of the third of four images: two are whole, and only two are sent again."""
    told, listen = heard
    predict(board, bundle, jpegs[:1])
    link = connect(board.name, board.address)
    before = {p.name for p in (cache(sshd) / "files").iterdir()}
    buffer = io.BytesIO()
    members = {sha256_file(path) + ".jpg": path for path in jpegs[1:5]}
    ends = []
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, path in members.items():
            archive.add(path, name)
            ends.append(archive.offset)
    cut = buffer.getvalue()[: ends[1] + 600]

    def feed(stream: IO[bytes]) -> None:
        stream.write(cut)
        stream.close()

    receiver = [sys.executable, "-I", "-S", "-c", receiver_program(), link.cache, "take"]
    done = link.run('exec "$@"', receiver, feed=feed)
    assert done.status != 0
    assert "the transfer was cut off" in done.last_line
    arrived = {p.name for p in (cache(sshd) / "files").iterdir()} - before
    assert arrived == set(list(members)[:2])
    predict(board, bundle, jpegs[:5], progress=listen)
    assert {total for task, _, total, _ in told if "sending" in task} == {2}


def test_a_file_that_changes_on_the_way_is_not_kept(board: SshDevice, bundle: Bundle, jpegs: list[Path]) -> None:
    predict(board, bundle, jpegs[:1])
    link = connect(board.name, board.address)
    feed = ssh._archive({"0" * 64: b"something else", "folder": b"{}"}, "sending", silent)
    receiver = [sys.executable, "-I", "-S", "-c", receiver_program(), link.cache, "take"]
    done = link.run('exec "$@"', receiver, feed=feed)
    assert "what arrives is not what was sent" in done.last_line
    assert not [p for p in Path(link.cache, "files").iterdir() if p.name.startswith((".", "0" * 64))]


def test_records_stay_here_and_a_damaged_bundle_does_not_stick(
    board: Device, bundle: Bundle, jpegs: list[Path], tmp_path: Path, sshd: Sshd
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle.path, copy)
    opened = load_bundle(copy)
    opened.write_record("bench.json", {"p50_ms": 1.0})
    model = opened.artifact().path
    whole = model.read_bytes()
    model.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DeviceError, match=r"^board: .*altered or damaged"):
        predict(board, opened, jpegs[:1])
    model.write_bytes(whole)
    assert predict(board, opened, jpegs[:1])["logits"].shape == (1, len(bundle.labels))
    assert list(cache(sshd).rglob("bench.json")) == []


def test_bench_selftest_and_probe_answer(board: Device, bundle: Bundle) -> None:
    record = bench(board, bundle, Plan(seconds=0))
    assert record.executed["deployed"].precision == "int8"
    assert record.cold["deployed"].cold_start_ms > 0
    assert selftest(board, bundle).passed
    probe = board.probe()
    assert probe.reachable, probe.reason
    assert probe.packages["onnxruntime"]
    assert find_device("board") == board


def test_a_damaged_image_is_named_as_it_is_called_here(
    board: Device, bundle: Bundle, jpegs: list[Path], tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(jpegs[0].read_bytes()[:400])
    with pytest.raises(DeviceError, match=rf"^board: {damaged} is a damaged image") as caught:
        predict(board, bundle, [jpegs[1], damaged])
    assert "\n" not in str(caught.value)


def refused(url: str, **call: Any) -> str:
    device = SshDevice("board", parse_url(url))
    probe = device.probe()
    assert not probe.reachable
    with pytest.raises(DeviceError) as caught:
        device.call(["machine"], **call)
    assert (caught.value.what, caught.value.remedy) == (probe.reason, probe.remedy)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_unknown_host_key_is_not_accepted(sshd: Sshd) -> None:
    config = sshd.client("unknown", known="no_such_file")
    assert "the host key of 127.0.0.1 is not known yet: check and accept it once by hand" in refused(sshd.url(config))
    assert not (sshd.folder / "no_such_file").exists()


def test_a_changed_host_key_is_refused(sshd: Sshd) -> None:
    config = sshd.client("changed", known="changed_hosts")
    assert "the host key of 127.0.0.1 is not the one that is known" in refused(sshd.url(config))


def test_a_key_that_is_not_authorized(sshd: Sshd) -> None:
    message = refused(sshd.url(sshd.client("stranger", key="stranger")))
    assert "does not let you in" in message
    assert "ssh-copy-id" in message


def test_nobody_listens(sshd: Sshd) -> None:
    message = refused(f"ssh://127.0.0.1:1?config={sshd.client('good')}")
    assert "cannot be reached" in message
    assert "Connection refused" in message


def test_no_python_there(sshd: Sshd) -> None:
    message = refused(sshd.url(sshd.client("good"), python="/nonexistent/python3"))
    assert "board has no working /nonexistent/python3" in message
    assert "?python=" in message


def test_packages_missing_there(sshd: Sshd, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    python = tmp_path / "bare/bin/python"
    message = refused(sshd.url(sshd.client("good"), python=str(python)))
    assert "No module named 'numpy'" in message
    assert f"{python} -m pip install numpy pillow onnxruntime" in message


def test_the_runtime_missing_there(sshd: Sshd, tmp_path: Path, bundle: Bundle, jpegs: list[Path]) -> None:
    """A Python with numpy and Pillow, borrowed from this one, and no runtime."""
    import PIL

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    packages = next((tmp_path / "venv").glob("lib/python3.*/site-packages"))
    installed = Path(np.__file__).parent.parent
    for folder in (*installed.glob("numpy*"), *Path(PIL.__file__).parent.parent.glob("[pP][iI][lL]*")):
        (packages / folder.name).symlink_to(folder)
    url = sshd.url(sshd.client("good"), python=str(tmp_path / "venv/bin/python"))
    device = SshDevice("board", parse_url(url))
    probe = device.probe()
    assert not probe.reachable
    assert "lacks onnxruntime or openvino or tensorrt" in probe.reason
    with pytest.raises(DeviceError, match=r"onnxruntime, which is not installed: pip install"):
        predict(device, bundle, jpegs[:1])


def test_what_reads_texts_missing_there(
    sshd: Sshd, tmp_path: Path, bundle: Bundle, jpegs: list[Path], texts: tuple[Bundle, list[Path]]
) -> None:
    """A Python that has what images take: a text's bundle says what it lacks, an image's does not ask for it."""
    import onnxruntime
    import PIL

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    packages = next((tmp_path / "venv").glob("lib/python3.*/site-packages"))
    for module, names in ((np, "numpy*"), (PIL, "[pP][iI][lL]*"), (onnxruntime, "onnxruntime*")):
        for folder in Path(str(module.__file__)).parent.parent.glob(names):
            (packages / folder.name).symlink_to(folder)
    python = tmp_path / "venv/bin/python"
    device = SshDevice("board", parse_url(sshd.url(sshd.client("good"), python=str(python))))
    assert device.probe().reachable
    assert predict(device, bundle, jpegs[:1])["logits"].shape == (1, len(bundle.labels))
    with pytest.raises(DeviceError, match="No module named 'tokenizers'") as caught:
        predict(device, *texts)
    assert caught.value.remedy == f"install them on the device: {python} -m pip install numpy tokenizers onnxruntime"


def test_texts_are_read_there_too(board: Device, texts: tuple[Bundle, list[Path]]) -> None:
    bundle, files = texts
    found = predict(board, bundle, files, threads=1)["logits"]
    np.testing.assert_array_equal(found, runtime.predict(bundle, files, threads=1)["logits"])


def test_an_old_python_there(sshd: Sshd, tmp_path: Path) -> None:
    old = tmp_path / "python3.8"
    old.write_text("#!/bin/sh\necho 3 8\n")
    old.chmod(0o755)
    message = refused(sshd.url(sshd.client("good"), python=str(old)))
    assert "board has Python 3.8, and edgetl needs 3.10" in message


def test_the_work_ends_with_whoever_asked_for_it(sshd: Sshd, tmp_path: Path) -> None:
    """Killed with SIGKILL, this side leaves neither its connection, nor a folder, nor a process on the device."""
    mark = tmp_path / "running"
    slow = tmp_path / "python"
    slow.write_text(
        f'#!/bin/sh\nif [ "$1" = -c ]; then echo 3 12; exit 0; fi\n'
        f'if [ "$1" = -I ]; then exec {sys.executable} "$@"; fi\n'
        f"echo $$ > {mark}.new; mv {mark}.new {mark}\nexec sleep 600\n"
    )
    slow.chmod(0o755)
    url = sshd.url(sshd.client("good"), python=str(slow))
    program = (
        "import sys; from edgetl.devices.ssh import SshDevice; from edgetl.devices.connection import parse_url; "
        "SshDevice('board', parse_url(sys.argv[1])).call(['machine'])"
    )
    with tempfile.TemporaryDirectory() as short:
        environment = {**os.environ, "TMPDIR": short}
        caller = subprocess.Popen([sys.executable, "-c", program, url], cwd=ROOT, env=environment)
        wait_for(mark.exists)
        worker = Path("/proc") / mark.read_text().strip()
        assert worker.exists()
        caller.send_signal(signal.SIGKILL)
        caller.wait()
        wait_for(lambda: not worker.exists())
        wait_for(lambda: not list(Path(short).glob("edgetl-*")))
        assert not list(Path(short).glob("edgetl-*"))
    assert not worker.exists()


def test_ssh_killed_while_it_connects(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No device is to blame for an ssh that a short memory ended."""
    dying = tmp_path / "ssh"
    dying.write_text("#!/bin/sh\nkill -s KILL $$\n")
    dying.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    message = refused(sshd.url(sshd.client("good")))
    assert "the ssh program on this machine was killed (SIGKILL)" in message


def test_a_lost_connection_is_made_anew(board: Device, bundle: Bundle) -> None:
    assert selftest(board, bundle).passed
    disconnect()
    assert selftest(board, bundle).passed
