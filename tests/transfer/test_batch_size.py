"""The batch size found by trial: by its rule, on real steps, once for each run, and within the memory there is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageOps

import edgetl as package
from edgetl.base.errors import OutOfMemoryError
from edgetl.base.memory import available
from edgetl.cli.journey.file import read_journey
from edgetl.core.run import load_run
from edgetl.transfer.batch_size import GROWTH, MOST, search
from edgetl.transfer.finetune import finetune
from tests.test_retention import pictures

from .conftest import TINY

Cli = Callable[..., subprocess.CompletedProcess[str]]
AUTO: dict[str, Any] = {**TINY, "batch_size": "auto", "epochs": 2, "learning_rate": 0.003}
TRYING = "trying batch sizes"


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More of them, so that several sizes leave enough steps."""
    return pictures(tmp_path_factory.mktemp("digits") / "pictures", range(8))


def gives(rates: Mapping[int, float]) -> Callable[[int], float]:
    """A device with these rates, on which nothing larger fits."""

    def trial(size: int) -> float:
        if size not in rates:
            raise OutOfMemoryError("full", "less")
        return rates[size]

    return trial


@pytest.mark.parametrize(
    ("rates", "most", "size", "ended"),
    [
        ({16: 300.0, 32: 410.0, 64: 450.0, 128: 452.0}, 1000, 64, "128 is not 5 % faster"),
        ({16: 300.0, 32: 410.0}, 1000, 32, "64 does not fit into memory"),
        ({4: 10.0, 8: 30.0}, 1000, 8, "16 does not fit into memory"),
        ({2: 10.0}, 1000, 2, "4 does not fit into memory"),
        ({16: 300.0, 32: 410.0}, 40, 32, "64 would leave an epoch fewer than 8 steps"),
        ({8: 300.0}, 11, 8, "16 would leave an epoch fewer than 8 steps"),
        ({2**n: 1.1**n for n in range(20)}, 10**6, MOST, "1,024 is more than is tried"),
        ({16: 100.0, 32: 100.0 * (1 + GROWTH), 64: 105.0}, 100, 32, "64 is not 5 % faster"),
    ],
)
def test_the_largest_size_that_pays(rates: Mapping[int, float], most: int, size: int, ended: str) -> None:
    found = search(gives(rates), most)
    assert (found.size, found.ended) == (size, ended)
    assert found.rates == {tried: rate for tried, rate in rates.items() if tried in found.rates}


def test_where_nothing_fits_it_is_said() -> None:
    with pytest.raises(OutOfMemoryError, match="full"):
        search(gives({}), 1000)


def test_the_reason_names_what_was_tried() -> None:
    told = search(gives({16: 300.0, 32: 410.0, 64: 450.0, 128: 452.0}), 1000).to_json()
    assert told["size"] == 64
    assert told["reason"] == (
        "batch size 64: 16 gave 300 samples/s, 32 gave 410, 64 gave 450 and 128 gave 452; 128 is not 5 % faster"
    )
    assert search(gives({16: 1.0}), 1000).to_json(3)["size"] == 48


def test_a_run_with_a_found_size_is_the_run_with_that_number(tmp_path: Path, digits: Path) -> None:
    seen: set[str] = set()
    run = finetune(digits, tmp_path / "found", **AUTO, progress=lambda task, *rest: seen.add(task))
    assert TRYING in seen
    size, told = run.settings["batch_size"], run.lineage["batch_size"]
    assert size == told["size"]
    assert str(size) in told["samples_per_second"]
    assert told["reason"].startswith(f"batch size {size}: ")
    assert run.settings["learning_rate"] == AUTO["learning_rate"]
    given = finetune(digits, tmp_path / "given", **{**AUTO, "batch_size": size})
    assert given.weights_sha256 == run.weights_sha256
    assert given.settings == run.settings
    assert "batch_size" not in given.lineage
    seen.clear()
    for wanted in ("auto", size):
        again = finetune(
            digits,
            run.path,
            **{**AUTO, "batch_size": wanted},
            baseline="probe",
            progress=lambda task, *rest: seen.add(task),
        )
        assert (again.settings, again.weights_sha256) == (run.settings, run.weights_sha256)
    assert TRYING not in seen


def test_interrupted_it_goes_on_with_the_number_that_was_found(tmp_path: Path, digits: Path) -> None:
    options, stops = {**AUTO, "checkpoint_seconds": 0.0}, [TRYING, "training"]
    seen: list[str] = []

    def told(task: str, done: int, total: int, detail: str = "") -> None:
        seen.append(task)
        if stops and task == stops[0]:
            stops.pop(0)
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            finetune(digits, tmp_path / "run", **options, progress=told)
    checkpoint = tmp_path / "run" / "checkpoint"
    found = json.loads((checkpoint / "settings.json").read_text())["batch_size"]
    assert found == json.loads((checkpoint / "batch-size.json").read_text())["size"]
    seen.clear()
    run = finetune(digits, tmp_path / "run", **options, progress=told)
    assert TRYING not in seen
    assert "training" in seen
    assert run.settings["batch_size"] == found == run.lineage["batch_size"]["size"]
    whole = finetune(digits, tmp_path / "whole", **{**options, "batch_size": found})
    assert whole.weights_sha256 == run.weights_sha256


def test_a_strategy_without_steps_has_nothing_to_try(tmp_path: Path, few_digits: Path) -> None:
    options = {**TINY, "batch_size": "auto", "strategy": "linear-probe"}
    run = finetune(few_digits, tmp_path / "run", **options)
    assert run.settings["batch_size"] == 32
    assert "batch_size" not in run.lineage


def test_seeds_share_one_number(tmp_path: Path, few_digits: Path) -> None:
    found = package.repeat(few_digits, tmp_path / "runs", 2, **{**AUTO, "epochs": 1})
    first, second = found.runs
    assert first.settings["batch_size"] == second.settings["batch_size"]
    assert ["batch_size" in run.lineage for run in found.runs] == [True, False]


def test_streams_and_activations_are_tried_too(tmp_path: Path, few_digits: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    for file in sorted(few_digits.rglob("*.png")):
        ImageOps.invert(Image.open(file)).save(target / file.name)
    options = {**AUTO, "epochs": 1, "target_data": target, "strategy": "mmd"}
    run = finetune(few_digits, tmp_path / "two", **options)
    assert run.settings["batch_size"] == run.lineage["batch_size"]["size"]
    ahead = {**AUTO, "epochs": 1, "augment": "none", "set": {"freeze": 0.5}}
    run = finetune(few_digits, tmp_path / "ahead", **ahead)
    assert run.settings["batch_size"] == run.lineage["batch_size"]["size"]


@pytest.mark.parametrize(
    ("limit", "used", "cached", "names"),
    [
        ("4000000", 3000000, 500000, ("memory.max", "memory.current", "inactive_file")),
        (
            "4000000",
            3000000,
            0,
            ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
        ),
        ("1000", 3000000, 0, ("memory.max", "memory.current", "inactive_file")),
    ],
)
def test_a_control_group_bounds_the_memory(
    tmp_path: Path, limit: str, used: int, cached: int, names: tuple[str, str, str]
) -> None:
    most, current, cache = names
    (tmp_path / most).parent.mkdir(exist_ok=True)
    (tmp_path / most).write_text(f"{limit}\n")
    (tmp_path / current).write_text(f"{used}\n")
    (tmp_path / current).with_name("memory.stat").write_text(f"anon 7\n{cache} {cached}\n")
    assert available(tmp_path) == max(int(limit) - used + cached, 0)
    (tmp_path / most).write_text("max\n" if most == "memory.max" else f"{1 << 62}\n")
    told = available(tmp_path)
    assert told is None or told > 4000000


LIMITED = """
import json, resource, sys
import torch
from edgetl.transfer.finetune import finetune
torch.set_num_threads(1)
data, out, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
finetune(data, out + "/first", **{**options, "strategy": "linear-probe", "batch_size": 16})
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (140 << 20), resource.RLIM_INFINITY))
run = finetune(data, out + "/run", **options)
print(json.dumps(run.lineage["batch_size"]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_no_step_is_tried_that_would_not_fit(tmp_path: Path, digits: Path) -> None:
    options = {**AUTO, "epochs": 1, "image_size": 160}
    words = [sys.executable, "-c", LIMITED, str(digits), str(tmp_path), json.dumps(options)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["size"] < 16
    assert told["reason"].endswith("does not fit into memory")


def test_the_command_line_says_why_and_a_journey_may_ask_for_it(edgetl: Cli, few_digits: Path, tmp_path: Path) -> None:
    words = ("--backbone", "timm/test_efficientnet", "--weights", "none", "--image-size", "32", "--accelerator", "cpu")
    run = tmp_path / "run"
    done = edgetl("finetune", few_digits, *words, "--epochs", "1", "--batch-size", "auto", "--out", run, COLUMNS="300")
    assert done.returncode == 0, done.stderr
    reason = load_run(run).lineage["batch_size"]["reason"]
    assert reason in " ".join(done.stderr.split())
    printed = edgetl("run", "--print", run)
    size = load_run(run).settings["batch_size"]
    assert (f"batch-size = {size}\n" in printed.stdout) is (size != 32)
    for value, wanted in (('"auto"', "auto"), ("16", 16)):
        file = tmp_path / "journey.toml"
        file.write_text(f'out = "work"\n[finetune]\ndata = "digits"\nbatch-size = {value}\n')
        assert read_journey(file).stages[0].arguments["batch_size"] == wanted
