"""Whether a transfer helped: figures against independent ones, real runs, the page, the command line, older runs."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.optimize
import scipy.stats

import edgetl as package
from edgetl.base.errors import RunError
from edgetl.base.storage import read_json, sha256_file, write_sealed
from edgetl.core.data import Dataset, Sample
from edgetl.core.run import MANIFEST, Run, load_run
from edgetl.core.run_record import Baseline, RunMetrics
from edgetl.core.transfer_outcome import RETENTION, TransferGap, TransferOutcome
from edgetl.core.val_outputs import BASELINE_OUTPUTS, START_OUTPUTS, VAL_OUTPUTS, write_val_outputs
from edgetl.reporting.transfer import is_negative, sentences
from edgetl.transfer.finetune import finetune
from tests.test_retention import TINY, pictures

Edgetl = Callable[..., subprocess.CompletedProcess[str]]
Outputs = npt.NDArray[np.float32]
CLASSES = ("cat", "dog", "owl")


def held(
    folder: Path,
    labels: Sequence[Any],
    own: Outputs,
    start: Outputs | None,
    *,
    task: str = "classification",
    output: str = "logits",
    baseline: Outputs | None = None,
    **changes: Any,
) -> Run:
    """A run of these labels and outputs of its val split; no file of a sample is there, as none is read."""
    kind = {"classification": "class", "multi-label": "classes", "regression": "number"}[task]
    samples = tuple(Sample(f"{i}.png", label, f"{i:064x}", f"{i:064x}", "val") for i, label in enumerate(labels))
    data = Dataset(folder, () if kind == "number" else CLASSES, samples, label_kind=kind)
    folder.mkdir()
    for name, values in ((VAL_OUTPUTS, own), (START_OUTPUTS, start), (BASELINE_OUTPUTS, baseline)):
        if values is not None:
            write_val_outputs(folder, {output: values}, name)
    kept = [name for name in (VAL_OUTPUTS, START_OUTPUTS, BASELINE_OUTPUTS) if (folder / name).is_file()]
    metrics = RunMetrics(val={"n": len(labels)}, best_epoch=3, epochs_run=5)
    run = Run(
        path=folder,
        backbone="some-backbone",
        strategy="fine-tune",
        dataset=data,
        input_record={},
        settings={"seed": 0},
        metrics=metrics,
        lineage={},
        weights_sha256="0" * 64,
        task=task,
        hashes={name: sha256_file(folder / name) for name in kept},
        baseline=None if baseline is None else Baseline(kind="scratch", metrics=metrics),
    )
    return replace(run, **changes)


def answering(classes: npt.NDArray[np.int64]) -> Outputs:
    return np.eye(len(CLASSES), dtype=np.float32)[classes] * 3


def two_models(n: int, lost: int, gained: int, wrong: int = 0) -> tuple[list[int], Outputs, Outputs]:
    """Labels, a start, and a model that loses and gains so many samples; as many are wrong of both."""
    labels = np.random.default_rng(0).integers(0, 3, n)
    other = (labels + 1) % 3
    before, after = labels.copy(), labels.copy()
    after[:lost] = other[:lost]
    before[lost : lost + gained] = other[lost : lost + gained]
    for answers in (before, after):
        answers[n - wrong :] = other[n - wrong :]
    return labels.tolist(), answering(before), answering(after)


def tango(lost: int, gained: int, n: int, alpha: float) -> tuple[float, float]:
    """Tango's interval by its definition: the likelihood maximised by scipy under each hypothetical difference."""

    def statistic(difference: float) -> float:
        def minus_likelihood(p_lost: float) -> float:
            cells = np.array([p_lost, p_lost + difference, 1 - 2 * p_lost - difference])
            counts = np.array([lost, gained, n - lost - gained])
            return float(-np.sum(counts * np.log(np.maximum(cells, 1e-300))))

        least, most = max(0.0, -difference), (1 - difference) / 2
        found = scipy.optimize.minimize_scalar(
            minus_likelihood, bounds=(least, most), method="bounded", options={"xatol": 1e-12}
        )
        variance = n * (2 * found.x + difference - difference**2)
        return float((gained - lost - n * difference) / np.sqrt(variance))

    z, seen = scipy.stats.norm.ppf(1 - alpha), (gained - lost) / n
    low = scipy.optimize.brentq(lambda d: statistic(d) - z, -0.99, seen)
    high = scipy.optimize.brentq(lambda d: statistic(d) + z, seen, 0.99)
    return float(low), float(high)


def test_many_samples_give_tangos_interval(tmp_path: Path) -> None:
    labels, start, own = two_models(2000, lost=90, gained=150, wrong=100)
    (gap,) = package.transfer_outcome(held(tmp_path / "run", labels, own, start)).gaps
    assert (gap.against, gap.metric, gap.n, gap.level) == ("start", "accuracy", 2000, 0.95)
    assert (gap.before, gap.after) == pytest.approx((1 - 250 / 2000, 1 - 190 / 2000))
    assert gap.difference == pytest.approx(0.03)
    assert (gap.ci_low, gap.ci_high) == pytest.approx(tango(90, 150, 2000, 0.025), abs=2e-6)
    assert gap.helped == "better"


@pytest.mark.parametrize(("lost", "gained"), [(3, 9), (0, 4), (12, 2), (5, 5)])
def test_few_samples_give_one_that_is_no_bolder(tmp_path: Path, lost: int, gained: int) -> None:
    labels, start, own = two_models(120, lost, gained, wrong=10)
    (gap,) = package.transfer_outcome(held(tmp_path / "run", labels, own, start)).gaps
    low, high = tango(lost, gained, 120, 0.025)
    assert gap.ci_low <= low + 2e-6
    assert gap.ci_high >= high - 2e-6
    assert (gap.ci_low, gap.ci_high) == pytest.approx((low, high), abs=0.03)
    # What McNemar's exact test shows, which is the more cautious one, the interval shows, too.
    if scipy.stats.binomtest(min(lost, gained), lost + gained, 0.5).pvalue < 0.05:
        assert gap.helped == ("better" if gained > lost else "worse")


def test_errors_are_better_when_lower_and_agree_with_a_paired_t_interval(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.normal(0, 1, 400)
    start, own = (labels + rng.normal(0, spread, 400) for spread in (0.6, 0.5))
    columns = [values.astype(np.float32)[:, None] for values in (own, start)]
    run = held(tmp_path / "run", labels.tolist(), *columns, task="regression", output="values")
    (gap,) = package.transfer_outcome(run).gaps
    gains = np.abs(columns[1][:, 0] - labels) - np.abs(columns[0][:, 0] - labels)
    assert gap.metric == "mae"
    assert gap.difference == pytest.approx(gains.mean(), abs=1e-6)
    expected = scipy.stats.ttest_1samp(gains, 0).confidence_interval(0.95)
    width = expected.high - expected.low
    assert gap.ci_low == pytest.approx(expected.low, abs=0.15 * width)
    assert gap.ci_high == pytest.approx(expected.high, abs=0.15 * width)


def test_labels_that_leave_the_metric_undefined_give_no_gap(tmp_path: Path) -> None:
    values = np.ones((20, 3), np.float32)
    run = held(tmp_path / "run", [()] * 20, values, values - 2, task="multi-label")
    outcome = package.transfer_outcome(run)
    assert outcome.gaps == ()
    assert "not defined" in outcome.absent


def test_negative_transfer_is_called_that_with_what_to_do(tmp_path: Path) -> None:
    labels, start, own = two_models(400, lost=40, gained=8)
    run = held(tmp_path / "run", labels, own, start)
    outcome = package.transfer_outcome(run)
    assert is_negative(outcome)
    (told,) = sentences(run, outcome)
    assert told.startswith("Negative transfer: training lost 8 points over its linear start (95 % interval −")
    assert told.endswith("--strategy lora.")
    assert "the epoch was chosen on the same samples, so the figure flatters it" in told
    last = replace(run, settings={"seed": 0, "details": {"keep": "last"}})
    assert "flatters" not in sentences(last, package.transfer_outcome(last))[0]


def test_a_baseline_has_its_gap_beside(tmp_path: Path) -> None:
    labels, start, own = two_models(400, lost=4, gained=30)
    (rough, _) = two_models(400, 0, 90)[1:]
    run = held(tmp_path / "run", labels, own, start, baseline=rough)
    to_start, to_baseline = package.transfer_outcome(run).gaps
    assert (to_start.against, to_baseline.against) == ("start", "scratch")
    told = sentences(run, package.transfer_outcome(run))
    assert told[0].startswith("Training gained 6.5 points over its linear start (95 % interval +")
    assert "over the same network trained from scratch" in told[1]
    assert sentences(run, TransferOutcome((replace(to_baseline, ci_low=-0.2, ci_high=-0.1),)))[0].endswith(
        "or from none: --weights none."
    )
    unsure = TransferGap(**{**to_start.__dict__, "ci_low": -0.01, "ci_high": 0.02})
    assert "The interval holds 0: whether it helps is not shown." in sentences(run, TransferOutcome((unsure,)))[0]


def test_a_run_that_keeps_its_start_has_neither_gained_nor_lost(tmp_path: Path) -> None:
    labels, _, own = two_models(100, 0, 0, wrong=20)
    run = held(tmp_path / "run", labels, own, own + 1e-6, metrics=RunMetrics(val={"n": 100}, epochs_run=4))
    (gap,) = package.transfer_outcome(run).gaps
    assert (gap.difference, gap.ci_low, gap.ci_high, gap.kept, gap.helped) == (0, 0, 0, True, "not shown")
    assert sentences(run, package.transfer_outcome(run))[0].startswith("No epoch was better than the linear start")


def test_outputs_that_cannot_be_are_refused(tmp_path: Path) -> None:
    labels, start, own = two_models(30, 1, 2)
    start[0, 0] = np.nan
    with pytest.raises(RunError, match="no finite"):
        package.transfer_outcome(held(tmp_path / "run", labels, own, start))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A run from random weights, and one that starts from it, whose start is a probe of what was learned."""
    root = tmp_path_factory.mktemp("outcomes")
    first, second = pictures(root / "first", range(5)), pictures(root / "second", range(5, 10))
    old = finetune(first, root / "old", **TINY, epochs=2, learning_rate=0.003, baseline="probe")
    later = {**TINY, "weights": None, "from_run": old.path}
    tuned = finetune(second, root / "tuned", **later, epochs=4, learning_rate=0.01, set={"keep": "last"})
    return {"old": old, "tuned": tuned}


def test_a_run_keeps_what_its_start_answered(runs: dict[str, Run]) -> None:
    run = runs["tuned"]
    start, own = run.start_outputs, run.val_outputs
    assert start is not None
    assert own is not None
    labels = run.dataset.labels("val")
    right = [values["logits"].argmax(1) == labels for values in (start, own)]
    assert right[0].mean() == pytest.approx(run.metrics.start["accuracy"])
    assert right[1].mean() == pytest.approx(run.metrics.val["accuracy"])
    assert run.metrics.best_epoch > 0
    (gap,) = package.transfer_outcome(run).gaps
    assert gap.difference == pytest.approx(run.metrics.val["accuracy"] - run.metrics.start["accuracy"])
    assert not gap.chosen, "the last epoch is kept, whatever it scores"


def test_a_random_start_and_a_baseline(runs: dict[str, Run]) -> None:
    run = runs["old"]
    outcome = package.transfer_outcome(run)
    assert run.start_outputs is None
    assert outcome.absent.startswith("The start was random: there is no linear probe")
    (gap,) = outcome.gaps
    assert gap.against == "probe"
    assert run.baseline is not None
    assert gap.before == pytest.approx(run.baseline.metrics.val["accuracy"])
    assert gap.difference == pytest.approx(run.gain)


def test_older_runs_say_why_there_is_nothing(runs: dict[str, Run], tmp_path: Path) -> None:
    for name, file in (("tuned", START_OUTPUTS), ("old", BASELINE_OUTPUTS)):
        folder = tmp_path / name
        shutil.copytree(runs[name].path, folder)
        record = read_json(folder / MANIFEST)
        del record["files"][file]
        (folder / file).unlink()
        write_sealed(folder / MANIFEST, {key: value for key, value in record.items() if key != "digest"})
    tuned, old = (package.transfer_outcome(tmp_path / name) for name in ("tuned", "old"))
    assert tuned.gaps == old.gaps == ()
    assert "made before runs kept it" in tuned.absent
    assert load_run(tmp_path / "old").gain is not None


def test_retention_is_told_once_it_was_measured(runs: dict[str, Run], tmp_path: Path) -> None:
    folder = tmp_path / "tuned"
    shutil.copytree(runs["tuned"].path, folder)
    run, old = load_run(folder), runs["old"]
    before = package.transfer_outcome(run)
    assert before.retention is None
    assert f"was not measured: edgetl retention {folder} --of {old.path.resolve()}" in sentences(run, before)[-1]
    found = package.retention(run, old)
    outcome = package.transfer_outcome(load_run(folder))
    assert outcome.retention is not None
    assert outcome.retention.retained == found
    assert sentences(run, outcome)[-1].startswith(f"Of what {old.path.name} knew: accuracy ")
    assert outcome.to_json()["retention"]["retained"]["n"] == found.n
    # Another run in the same folder was not measured, and an altered record is no record.
    assert package.transfer_outcome(replace(run, weights_sha256="1" * 64)).retention is None
    (folder / RETENTION).write_text((folder / RETENTION).read_text().replace('"n": ', '"n": 1'))
    with pytest.raises(RunError, match="altered"):
        package.transfer_outcome(run)


def test_the_page_tells_it(runs: dict[str, Run], tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    run = runs["tuned"]
    page = package.report(run, tmp_path / "page.html").read_text().replace("\u00a0", " ")
    assert "What the transfer gave" in page
    assert sentences(run, package.transfer_outcome(run))[0].split("(")[0] in page
    labels, start, own = two_models(400, lost=40, gained=8)
    from edgetl.reporting.html import render

    worse = replace(run, hashes={k: v for k, v in run.hashes.items() if k != VAL_OUTPUTS})
    outcome = package.transfer_outcome(held(tmp_path / "run", labels, own, start))
    assert "negative transfer</span>" in render([worse], transfers={worse.path: outcome})


def test_the_command_line_tells_it(edgetl: Edgetl, runs: dict[str, Run]) -> None:
    run, old = runs["tuned"], runs["old"]
    words = [
        *("--from", old.path, "--precision", "32-true", "--accelerator", "cpu", "--batch-size", "16"),
        *("--epochs", "4", "--learning-rate", "0.01", "--image-size", "32", "--set", "keep=last"),
    ]
    data = run.settings["data"]
    done = edgetl("finetune", data, *words, "--out", run.path, COLUMNS="400")
    assert done.returncode == 0, done.stderr
    assert sentences(run, package.transfer_outcome(run))[0] in " ".join(done.stdout.split())
    told = json.loads(edgetl("finetune", data, *words, "--out", run.path, "--json").stdout)["transfer"]
    (gap,) = package.transfer_outcome(run).gaps
    assert told["gaps"][0]["helped"] == gap.helped
    assert told["gaps"][0]["ci_low"] == gap.ci_low
    assert told["retention"] is None
