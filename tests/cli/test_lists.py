"""The commands that list and check, for people and for programs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import edgetl as package
from edgetl.core.targets import load_targets

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("command", "key", "least"),
    [
        ("targets", "targets", 11),
        ("backbones", "backbones", 3),
        ("strategies", "strategies", 2),
        ("tasks", "tasks", 4),
        ("doctor", "checks", 8),
    ],
)
def test_json_is_one_object_and_nothing_else(edgetl: Cli, command: str, key: str, least: int) -> None:
    done = edgetl(command, "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)[key]) >= least
    assert done.stdout.count("\n") == 1


def test_targets_for_people(edgetl: Cli) -> None:
    done = edgetl("targets", COLUMNS="200")
    assert done.returncode == 0
    for name in load_targets():
        assert name in done.stdout
    assert "jetson-orin-nano (jetson)" in done.stdout


def test_a_strategy_shows_what_it_can_be_told_and_given(edgetl: Cli) -> None:
    (listed,) = json.loads(edgetl("strategies", "lora", "--json").stdout)["strategies"]
    rank = next(option for option in listed["options"] if option["name"] == "rank")
    assert (rank["type"], rank["default"]) == ("int", 8)
    shown = edgetl("strategies", "distillation", COLUMNS="200").stdout
    assert all(word in shown for word in ("--set temperature=", "--teacher", "needed", "--target-data"))
    assert "Distilling the Knowledge in a Neural Network" in shown
    every = json.loads(edgetl("strategies", "--json").stdout)["strategies"]
    assert all(listed["reference"] for listed in every if listed["name"] != "source-only")
    unknown = edgetl("strategies", "lorra")
    assert (unknown.returncode, "did you mean" in unknown.stderr, "lora" in unknown.stderr) == (2, True, True)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("--set", "rnk=4"), "did you mean rank?"),
        (("--set", "rank=many"), "the option rank is 'many': give a whole number"),
        (("--set", "rank"), "--set rank gives no value"),
        (("--set", "rank=2", "--set", "rank=3"), "--set rank is given twice"),
        (("--teacher", "run"), "is not a run"),
    ],
)
def test_a_wrong_option_of_a_strategy_is_one_line(
    edgetl: Cli, tmp_path: Path, given: tuple[str, ...], words: str
) -> None:
    done = edgetl("finetune", "digits", "--strategy", "lora", "--out", str(tmp_path / "run"), *given)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_devices_always_know_this_machine(edgetl: Cli, tmp_path: Path) -> None:
    done = edgetl("devices", "--json", EDGETL_HOME=str(tmp_path))
    assert [d["name"] for d in json.loads(done.stdout)["devices"]] == ["local"]
    assert edgetl("devices", "add", "nano", "ssh://me@127.0.0.1:2200", EDGETL_HOME=str(tmp_path)).returncode == 0
    listed = json.loads(edgetl("devices", "--json", EDGETL_HOME=str(tmp_path)).stdout)["devices"]
    assert [d["name"] for d in listed] == ["local", "nano"]
    assert edgetl("devices", "remove", "nano", EDGETL_HOME=str(tmp_path)).returncode == 0
    again = edgetl("devices", "remove", "nano", EDGETL_HOME=str(tmp_path))
    assert again.returncode == 2
    assert "nano" in again.stderr


def test_backbones_of_timm_are_found_by_pattern(edgetl: Cli) -> None:
    done = edgetl("backbones", "tf_efficientnet_lite*", "--json")
    assert done.returncode == 0, done.stderr
    names = [b["name"] for b in json.loads(done.stdout)["backbones"]]
    assert any("tf_efficientnet_lite4" in name for name in names)


def test_version_and_bare_command(edgetl: Cli) -> None:
    assert edgetl("--version").stdout.strip() == f"edgetl {package.__version__}"
    assert "finetune" in edgetl().stdout


def test_doctor_says_what_to_install(edgetl: Cli) -> None:
    checks = json.loads(edgetl("doctor", "--json").stdout)["checks"]
    assert all(check["works"] or check["remedy"] for check in checks)
