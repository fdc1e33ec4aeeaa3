"""Deploying and rolling back: here, behind a real sshd, and on an emulated Arm machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import edgetl
from edgetl.base.errors import EdgetlError, UnknownNameError
from edgetl.base.storage import read_json, write_sealed
from edgetl.core.bundle import MANIFEST, Bundle, load_bundle
from edgetl.devices import Device, add_device
from edgetl.runtime.installed import Installed
from edgetl.workflow import fleet
from tests.devices.conftest import NAME, here, variant

Cli = Callable[..., Any]


def deployed(bundle: Bundle, device: str) -> fleet.Outcome:
    (outcome,) = edgetl.deploy(bundle, [device], name=NAME, force=True)
    return outcome


def installed(outcome: fleet.Outcome) -> Installed:
    assert isinstance(outcome.record, Installed)
    return outcome.record


def releases(there: Path) -> set[str]:
    return {path.name for path in (there / "releases").iterdir()}


def in_charge(there: Path) -> str:
    """The digest of the release in charge, each of whose files is checked."""
    return load_bundle(there / "current").digest


def test_a_release_is_whole_tested_and_replaced_and_comes_back(
    there: Path, device: str, host_bundle: Bundle, tmp_path: Path
) -> None:
    newer, newest = (variant(host_bundle, tmp_path / name) for name in ("newer", "newest"))
    first = deployed(host_bundle, device)
    assert (first.state, first.reason) == ("deployed", "")
    assert installed(first).path == str(there / "current")
    assert installed(first).selftest.passed
    assert in_charge(there) == host_bundle.digest == installed(first).release
    assert installed(deployed(newer, device)).previous == host_bundle.digest
    assert in_charge(there) == newer.digest
    assert deployed(newest, device).state == "deployed"
    assert releases(there) == {newer.digest, newest.digest}
    (back,) = edgetl.rollback([device], name=NAME)
    assert (back.state, installed(back).selftest.passed) == ("rolled back", True)
    assert in_charge(there) == newer.digest
    assert installed(edgetl.rollback([device], name=NAME)[0]).release == newest.digest
    assert releases(there) == {newer.digest, newest.digest}


@here
def test_the_same_bundle_again_changes_nothing(there: Path, device: str, host_bundle: Bundle) -> None:
    deployed(host_bundle, device)
    before = {p: p.lstat().st_ino for p in there.rglob("*")}
    assert deployed(host_bundle, device).state == "unchanged"
    assert {p: p.lstat().st_ino for p in there.rglob("*")} == before


def test_what_fails_its_selftest_is_not_put_in_charge(
    there: Path, device: str, host_bundle: Bundle, tmp_path: Path
) -> None:
    wrong = variant(host_bundle, tmp_path / "wrong", wrong=True)
    alone = deployed(wrong, device)
    assert alone.failed
    assert "the self-test failed" in alone.reason
    assert not there.exists()
    deployed(host_bundle, device)
    assert deployed(wrong, device).failed
    assert in_charge(there) == host_bundle.digest
    assert releases(there) == {host_bundle.digest}


@here
def test_a_damaged_release_is_replaced_by_a_whole_one(there: Path, device: str, host_bundle: Bundle) -> None:
    deployed(host_bundle, device)
    labels = there / "releases" / host_bundle.digest / "labels.json"
    labels.unlink()
    labels.write_text("[]")
    assert deployed(host_bundle, device).state == "deployed"
    assert in_charge(there) == host_bundle.digest
    assert len(list(there.glob("releases/*/" + MANIFEST))) == 2


@here
def test_a_rollback_to_a_damaged_release_is_refused(
    there: Path, device: str, host_bundle: Bundle, tmp_path: Path
) -> None:
    newer = variant(host_bundle, tmp_path / "newer")
    for bundle in (host_bundle, newer):
        deployed(bundle, device)
    (there / "releases" / host_bundle.digest / "labels.json").unlink()
    (outcome,) = edgetl.rollback([device], name=NAME)
    assert "lacks labels.json" in outcome.reason
    assert in_charge(there) == newer.digest


@here
def test_nothing_to_roll_back_to(there: Path, device: str, host_bundle: Bundle) -> None:
    (nothing,) = edgetl.rollback([device], name=NAME)
    assert nothing.reason.endswith("nothing is deployed under the name 'camera': deploy it first: edgetl deploy")
    assert not there.exists()
    deployed(host_bundle, device)
    assert "'camera' has no previous release" in edgetl.rollback([device], name=NAME)[0].reason
    assert "choose one of camera" in edgetl.rollback([device], name="camra")[0].reason


@here
def test_another_installation_under_way_is_not_disturbed(there: Path, device: str, host_bundle: Bundle) -> None:
    import fcntl

    there.parent.mkdir(parents=True)
    with (there.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another deployment is under way" in deployed(host_bundle, device).reason
    assert deployed(host_bundle, device).state == "deployed"


@here
def test_a_bundle_for_another_machine_stays_here(there: Path, device: str, host_bundle: Bundle, tmp_path: Path) -> None:
    other = variant(host_bundle, tmp_path / "other", target="jetson-orin-nano")
    outcome = deployed(other, device)
    assert outcome.failed
    assert "jetson-orin-nano" in outcome.reason
    assert not there.exists()


def test_bad_requests_end_before_any_work(own_home: Path, host_bundle: Bundle) -> None:
    with pytest.raises(UnknownNameError, match="unknown device 'locl'"):
        edgetl.deploy(host_bundle, ["local", "locl"], force=True)
    with pytest.raises(EdgetlError, match="no device is named"):
        edgetl.deploy(host_bundle, [], force=True)
    with pytest.raises(EdgetlError, match="positive --jobs"):
        edgetl.deploy(host_bundle, ["local"], jobs=0, force=True)
    (outcome,) = edgetl.deploy(host_bundle, ["local"], name="../elsewhere", force=True)
    assert "cannot name what is deployed" in outcome.reason


def test_the_emulated_machine_takes_and_returns_releases(
    emulated: Device, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGETL_HOME", str(Path(emulated.where).parents[2]))
    data = Path(emulated.where).parent / "data/edgetl/arm64-generic"
    shutil.rmtree(data.parent, ignore_errors=True)
    newer = variant(bundle, tmp_path / "newer")
    assert [o.state for b in (bundle, newer) for o in edgetl.deploy(b, [emulated.name], force=True)] == ["deployed"] * 2
    assert in_charge(data) == newer.digest
    assert edgetl.rollback([emulated.name], name="arm64-generic")[0].state == "rolled back"
    assert in_charge(data) == bundle.digest
    shutil.rmtree(data.parent)


def test_the_command_line_says_what_came_of_each(
    own_home: Path, tmp_path: Path, host_bundle: Bundle, edgetl: Cli
) -> None:
    add_device("dead", "ssh://127.0.0.1:1")
    where = {"EDGETL_HOME": str(own_home), "XDG_DATA_HOME": str(tmp_path / "data")}
    command = ("deploy", host_bundle.path, "--device", "local", "--device", "dead", "--name", NAME, "--force")
    done = edgetl(*command, "--json", **where)
    assert done.returncode == 2
    answer = json.loads(done.stdout)
    assert answer["failed"] == 1
    assert [(d["device"], d["state"]) for d in answer["devices"]] == [("local", "deployed"), ("dead", "failed")]
    assert "cannot be reached" in answer["devices"][1]["reason"]
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert errors[0].startswith("error: dead cannot be reached")
    read = edgetl(*command, "--quiet", **where)
    assert read.returncode == 2
    assert "unchanged" in read.stdout
    back = edgetl("rollback", "--device", "local", "--name", NAME, **where)
    assert back.returncode == 2
    assert "error: local: 'camera' has no previous release" in back.stderr


@here
@pytest.mark.parametrize("certificate", ["missing", "failing", "made up", "another's"])
def test_what_is_not_certified_takes_force(
    there: Path, device: str, tiny_bundle: Path, tmp_path: Path, certificate: str, edgetl: Cli
) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    file = bundle / "certificate.json"
    if certificate == "missing":
        file.unlink()
    elif certificate == "failing":
        assert edgetl("verify", bundle, "--margin", "0", "--alpha", "0.4").returncode in (3, 4)
        record = read_json(file)
        write_sealed(file, {**record, "verdict": "fail"})
    elif certificate == "made up":
        write_sealed(file, {**read_json(file), "verdict": "pass", "deployed_accuracy": 0.5})
    else:
        write_sealed(file, {**read_json(file), "manifest": "0" * 64})
    refused = edgetl("deploy", bundle, "--device", device, "--name", NAME)
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1, refused.stderr
    assert not there.exists()
    if certificate == "another's":
        assert "belongs to another bundle" in refused.stderr
        return
    assert "--force" in refused.stderr
    forced = edgetl("deploy", bundle, "--device", device, "--name", NAME, "--force", "--json")
    assert forced.returncode == 0, forced.stderr
    assert "note: deployed all the same: " in forced.stderr
    assert json.loads(forced.stdout)["devices"][0]["doubt"]


@here
def test_a_certificate_that_passes_takes_no_force(
    there: Path, device: str, tiny_bundle: Path, tmp_path: Path, edgetl: Cli
) -> None:
    bundle = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    assert edgetl("verify", bundle, "--margin", "0.6").returncode == 0
    deployed = edgetl("deploy", bundle, "--device", device, "--name", NAME)
    assert deployed.returncode == 0, deployed.stderr
    assert "deployed all the same" not in deployed.stderr
