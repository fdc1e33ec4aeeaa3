"""Many devices at once, and what is wrong with some: one clear line each, nothing left there, the others go on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgetl
from edgetl.core.bundle import Bundle, load_bundle
from edgetl.devices import add_device
from edgetl.devices.connection import disconnect
from edgetl.workflow import fleet
from tests.conftest import ROOT
from tests.devices.conftest import HOST_TARGET, variant
from tests.devices.real_sshd import (
    Sshd,
    children,
    free_ports,
    hanging_python,
    running_in,
    running_sshds,
    silent_port,
    small_disk,
    wait_for,
)

Cli = Callable[..., Any]
NAME = "camera"
OTHER_TARGET = "x86-generic" if HOST_TARGET == "arm64-generic" else "arm64-generic"


@pytest.fixture
def clean(sshd: Sshd, own_home: Path) -> Iterator[Sshd]:
    """A device without anything of edgetl's, called board."""
    disconnect()
    for name in (".cache", ".local"):
        shutil.rmtree(sshd.home / name, ignore_errors=True)
    add_device("board", sshd.url(sshd.client("good")))
    yield sshd
    disconnect()


def place(home: Path) -> Path:
    return home / ".local/share/edgetl" / NAME


def nothing_is_left(home: Path, in_charge: Bundle | None = None) -> None:
    """No process, no scratch folder, nothing that is not whole, and the old release in charge, if there was one."""
    wait_for(lambda: not running_in(home))
    assert running_in(home) == []
    left = [path for path in home.rglob("*") if path.name.startswith(".partial")]
    assert left + list((home / ".cache/edgetl/calls").glob("*")) == []
    if in_charge is None:
        assert not place(home).exists()
    else:
        assert load_bundle(place(home) / "current").digest == in_charge.digest
        assert [path.name for path in (place(home) / "releases").iterdir()] == [in_charge.digest]


def sick(*devices: str, bundle: Bundle, timeout: float = 120.0) -> list[str]:
    """Deploy where it must fail; the reasons."""
    outcomes = edgetl.deploy(bundle, devices, name=NAME, timeout=timeout, force=True)
    assert [outcome.state for outcome in outcomes] == ["failed"] * len(devices)
    assert not any("\n" in outcome.reason or "a bug in edgetl" in outcome.reason for outcome in outcomes)
    return [outcome.reason for outcome in outcomes]


def bare_python(folder: Path, *packages: str) -> Path:
    """A Python that has only these packages, borrowed from this one."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    target = next(folder.glob("lib/python3.*/site-packages"))
    for pattern in packages:
        for found in Path(np.__file__).parent.parent.glob(pattern):
            (target / found.name).symlink_to(found)
    return folder / "bin/python"


def test_each_thing_that_is_wrong_has_its_line(clean: Sshd, host_bundle: Bundle, tmp_path: Path) -> None:
    good = clean.client("good")
    no_runtime = bare_python(tmp_path / "no-runtime", "numpy*", "[pP][iI][lL]*")
    addresses = {
        "unknown": clean.url(clean.client("unknown", known="no_such_file")),
        "changed": clean.url(clean.client("changed", known="changed_hosts")),
        "refused": f"ssh://127.0.0.1:{free_ports(1)[0]}?config={good}",
        "stranger": clean.url(clean.client("stranger", key="stranger")),
        "no-numpy": clean.url(good, str(bare_python(tmp_path / "no-numpy"))),
        "no-runtime": clean.url(good, str(no_runtime)),
    }
    for name, url in addresses.items():
        add_device(name, url)
    said = dict(zip(addresses, sick(*addresses, bundle=host_bundle), strict=True))
    assert "the host key of 127.0.0.1 is not known yet" in said["unknown"]
    assert "the host key of 127.0.0.1 is not the one that is known" in said["changed"]
    assert "Connection refused" in said["refused"]
    assert "does not let you in" in said["stranger"]
    assert "No module named 'numpy'" in said["no-numpy"]
    assert "no-runtime lacks onnxruntime or openvino or tensorrt" in said["no-runtime"]
    assert f"{no_runtime}" in said["no-runtime"] or "pip install" in said["no-runtime"]
    nothing_is_left(clean.home)


def test_a_bundle_for_another_instruction_set_is_not_even_sent(clean: Sshd, bundle: Bundle, tmp_path: Path) -> None:
    other = variant(bundle, tmp_path / "other", target=OTHER_TARGET)
    (reason,) = sick("board", bundle=other)
    assert f"made for {OTHER_TARGET}" in reason
    assert not list((clean.home / ".cache/edgetl/bundles").iterdir())
    nothing_is_left(clean.home)


def lose_the_connection(server: Sshd, agent: int) -> None:
    for session in children(server.pid):
        os.kill(session, signal.SIGKILL)


def kill_the_agent(server: Sshd, agent: int) -> None:
    os.kill(agent, signal.SIGKILL)


def kill_our_ssh(server: Sshd, agent: int) -> None:
    """The ssh that runs the command: its connection's own hangs on a shell."""
    for child in children(os.getpid()):
        if Path(f"/proc/{child}/comm").read_text().strip() == "ssh":
            os.kill(child, signal.SIGKILL)


def do_nothing(server: Sshd, agent: int) -> None:
    pass


@pytest.mark.parametrize(
    ("trouble", "timeout", "said"),
    [
        (lose_the_connection, 120.0, "the connection was lost in the middle"),
        (kill_the_agent, 120.0, "the work was killed there (SIGKILL)"),
        (kill_our_ssh, 120.0, "the ssh program on this machine was killed (SIGKILL)"),
        (do_nothing, 8.0, "not done within 8 s"),
    ],
)
def test_what_ends_in_the_middle_leaves_the_old_release(
    clean: Sshd,
    host_bundle: Bundle,
    tmp_path: Path,
    trouble: Callable[[Sshd, int], None],
    timeout: float,
    said: str,
) -> None:
    (before,) = edgetl.deploy(host_bundle, ["board"], name=NAME, force=True)
    assert before.state == "deployed"
    python, mark = hanging_python(tmp_path / "sick")
    add_device("sick", clean.url(clean.client("good"), str(python)))
    newer = variant(host_bundle, tmp_path / "newer")
    reasons: list[str] = []
    work = threading.Thread(target=lambda: reasons.extend(sick("sick", bundle=newer, timeout=timeout)))
    work.start()
    wait_for(lambda: mark.exists() or not work.is_alive())
    if mark.exists():
        trouble(clean, int(mark.read_text()))
    work.join()
    assert said in reasons[0]
    nothing_is_left(clean.home, host_bundle)


def test_an_interrupted_deployment_ends_there_too(
    clean: Sshd, host_bundle: Bundle, tmp_path: Path, own_home: Path
) -> None:
    edgetl.deploy(host_bundle, ["board"], name=NAME, force=True)
    python, mark = hanging_python(tmp_path / "sick")
    add_device("sick", clean.url(clean.client("good"), str(python)))
    newer = variant(host_bundle, tmp_path / "newer")
    command = ["deploy", str(newer.path), "--device", "sick", "--name", NAME, "--quiet", "--force"]
    caller = subprocess.Popen(
        [sys.executable, "-c", "from edgetl.cli import main; main()", *command],
        cwd=ROOT,
        env={**os.environ, "EDGETL_HOME": str(own_home)},
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background has SIGINT ignored, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    wait_for(mark.exists)
    assert mark.exists()
    caller.send_signal(signal.SIGINT)
    _, said = caller.communicate(timeout=60)
    assert caller.returncode == 130
    assert "Traceback" not in said
    nothing_is_left(clean.home, host_bundle)


def test_a_disk_that_fills_while_files_arrive_is_given_back(own_home: Path, tmp_path: Path, bundle: Bundle) -> None:
    heavy = variant(bundle, tmp_path / "heavy", target=HOST_TARGET, ballast=4_000_000)
    (tmp_path / "sshd").mkdir()
    with small_disk(tmp_path / "home", 2_000_000) as home, running_sshds(tmp_path / "sshd", [home]) as (server,):
        add_device("full", server.url(server.client("good")))
        (reason,) = sick("full", bundle=heavy)
        assert reason.startswith("full has no space left")
        nothing_is_left(home)
        assert not list((home / ".cache/edgetl/bundles").iterdir())
        used = sum(p.stat().st_size for p in (home / ".cache/edgetl/files").iterdir())
        assert used < 1_000_000, "only the device's share of edgetl stays"


def test_a_disk_that_fills_while_it_is_installed_keeps_the_old_release(
    clean: Sshd, host_bundle: Bundle, tmp_path: Path
) -> None:
    heavy = variant(host_bundle, tmp_path / "heavy", ballast=4_000_000)
    with small_disk(clean.home / ".local", 2_000_000):
        assert edgetl.deploy(host_bundle, ["board"], name=NAME, force=True)[0].state == "deployed"
        (reason,) = sick("board", bundle=heavy)
        assert reason.startswith("board has no space left")
        nothing_is_left(clean.home, host_bundle)


def test_ten_devices_of_which_four_are_sick(own_home: Path, tmp_path: Path, host_bundle: Bundle) -> None:
    """Two are dead, one never answers, one hangs in the middle: each has its reason and the six others finish."""
    homes = [tmp_path / f"home-{index}" for index in range(7)]
    for home in homes:
        home.mkdir()
    (tmp_path / "sshd").mkdir()
    python, _ = hanging_python(tmp_path / "hangs")
    with running_sshds(tmp_path / "sshd", homes) as servers, silent_port() as silent:
        config = servers[0].client("good")
        known = [f"dead-{port}" for port in free_ports(2)]
        for name in known:
            add_device(name, f"ssh://127.0.0.1:{name.removeprefix('dead-')}?config={config}")
        add_device("silent", f"ssh://127.0.0.1:{silent}?config={config}")
        add_device("hangs", servers[6].url(config, str(python)))
        healthy = [f"healthy-{index}" for index in range(6)]
        for name, server in zip(healthy, servers, strict=False):
            add_device(name, server.url(config))
        names = ["silent", "hangs", *healthy[:3], *known, *healthy[3:]]
        told: list[tuple[str, int, int, str]] = []
        outcomes = edgetl.deploy(
            host_bundle,
            names,
            name=NAME,
            force=True,
            jobs=4,
            timeout=20,
            progress=lambda *a: told.append(a),  # type: ignore[misc]
        )
        assert [outcome.device for outcome in outcomes] == names
        said = {outcome.device: outcome.reason or outcome.state for outcome in outcomes}
        assert {said[name] for name in healthy} == {"deployed"}
        assert all("Connection refused" in said[name] for name in known)
        assert "silent cannot be reached" in said["silent"]
        assert "not done within 20 s" in said["hangs"]
        assert told[-1][1:3] == (10, 10)
        for home in homes[:6]:
            nothing_is_left(home, host_bundle)
        nothing_is_left(homes[6])


def test_what_was_measured_is_kept_when_another_device_fails(
    clean: Sshd, host_bundle: Bundle, tmp_path: Path, edgetl: Cli, own_home: Path
) -> None:
    add_device("dead", f"ssh://127.0.0.1:{free_ports(1)[0]}?config={clean.client('good')}")
    mine = variant(host_bundle, tmp_path / "mine")
    devices = [argument for name in ("dead", "board", "local") for argument in ("--device", name)]
    done = edgetl("bench", mine.path, *devices, "--duration", "0", "--json", "--quiet", EDGETL_HOME=str(own_home))
    assert done.returncode == 2, done.stderr
    answer = json.loads(done.stdout)
    assert [(d["device"], d["state"]) for d in answer["devices"]] == [
        ("dead", "failed"),
        ("board", "measured"),
        ("local", "measured"),
    ]
    opened = load_bundle(mine.path)
    for name, executed in (("board", "device"), ("local", "host")):
        record = opened.record(fleet.record_name(name))
        assert record is not None
        assert record["executed"] == executed
        assert record["p50_ms"] > 0
    assert opened.record(fleet.record_name("dead")) is None
    assert opened.record("bench.json") is None
