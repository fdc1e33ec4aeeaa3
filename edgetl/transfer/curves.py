"""Learning curves where people look at them: one function a program, one visible dict.

Every program is told the whole history after each epoch, and takes what it does not have. So a run that was killed and
taken up again has one curve, and one that ended before its last epoch was told is completed.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetl.base.errors import EdgetlError, UnknownNameError
from edgetl.base.extras import check_installed, require
from edgetl.base.storage import sha256_json

#: Below the run's folder: what TensorBoard reads.
TENSORBOARD = "tensorboard"
#: By which a run of MLflow is found again, and the experiment where the environment names none.
_TAG, _EXPERIMENT = "edgetl.run", "edgetl"

Rows = Sequence[Mapping[str, Any]]
Record = Callable[[Rows], None]


@dataclass(frozen=True)
class Program:
    """What draws learning curves.

    Attributes:
        module: that it takes.
        open: from the run's folder and its settings to what is told the rows of ``history.jsonl``.
    """

    module: str
    open: Callable[[Path, Mapping[str, Any]], AbstractContextManager[Record]]


def check_log(name: str | None) -> None:
    """Refuse, before any work, a program that is unknown or not installed.

    Raises:
        UnknownNameError: no such program.
        MissingExtraError: it is not installed.
    """
    if name is None:
        return
    if name not in PROGRAMS:
        raise UnknownNameError("log", name, PROGRAMS)
    check_installed(f"--log {name}", PROGRAMS[name].module)


def recorder(name: str | None, folder: Path, settings: Mapping[str, Any]) -> AbstractContextManager[Record]:
    """What is to be told the history so far: at the start, and after each epoch.

    Args:
        name: of a program; None for nobody.
        folder: of the run.
        settings: of the run, as plain JSON values.

    Raises:
        EdgetlError: the program cannot be reached.
    """
    return nullcontext(_unheard) if name is None else PROGRAMS[name].open(folder, settings)


def _unheard(rows: Rows) -> None:
    """Tell nobody."""


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """The curves' values in one row of ``history.jsonl``, by name; those that are undefined are missing."""
    named = {"train/loss": row.get("train_loss"), "train/accuracy": row.get("train_accuracy")}
    named |= {"learning_rate": row.get("learning_rate")}
    named |= {f"val/{name}": value for name, value in row["val"].items() if name != "n"}
    return {name: float(value) for name, value in named.items() if value is not None and math.isfinite(value)}


@contextmanager
def _tensorboard(folder: Path, settings: Mapping[str, Any]) -> Iterator[Record]:
    place = folder / TENSORBOARD
    # The files of a process that was killed may hold epochs that will come again: the history has all that count.
    for file in place.glob("events.out.tfevents.*"):
        file.unlink()
    # A TensorBoard that has those files open forgets what it read in them.
    writer = require("torch.utils.tensorboard", "--log tensorboard").SummaryWriter(str(place), purge_step=0)
    told = 0

    def record(rows: Rows) -> None:
        nonlocal told
        for row in rows[told:]:
            for name, value in scalars(row).items():
                writer.add_scalar(name, value, row["epoch"])
        told = len(rows)
        writer.flush()

    try:
        yield record
    finally:
        writer.close()


@contextmanager
def _mlflow(folder: Path, settings: Mapping[str, Any]) -> Iterator[Record]:
    mlflow = require("mlflow", "--log mlflow")
    key = hashlib.sha256(f"{folder.resolve()} {sha256_json(settings)}".encode()).hexdigest()
    with _reachable(mlflow):
        client = mlflow.MlflowClient()
        run = _taken_up(client, key) or _begun(client, key, folder.resolve().name, settings)
        last = {name: max(m.step for m in client.get_metric_history(run, name)) for name in _names(client, run)}

    def record(rows: Rows) -> None:
        with _reachable(mlflow):
            for row in rows:
                for name, value in scalars(row).items():
                    if row["epoch"] > last.get(name, -1):
                        client.log_metric(run, name, value, step=row["epoch"])
                        last[name] = row["epoch"]

    status = "FAILED"
    try:
        yield record
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        with _reachable(mlflow):
            client.set_terminated(run, status)


def _experiment(client: Any) -> str:
    if os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return os.environ["MLFLOW_EXPERIMENT_ID"]
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or _EXPERIMENT
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found is not None else client.create_experiment(name))


def _taken_up(client: Any, key: str) -> str | None:
    """The run that an earlier process began for the same folder and settings."""
    found = client.search_runs([_experiment(client)], filter_string=f"tags.`{_TAG}` = '{key}'", max_results=1)
    if not found:
        return None
    run = str(found[0].info.run_id)
    client.update_run(run, status="RUNNING")
    return run


def _begun(client: Any, key: str, name: str, settings: Mapping[str, Any]) -> str:
    run = str(client.create_run(_experiment(client), run_name=name, tags={_TAG: key}).info.run_id)
    for option, value in settings.items():
        if isinstance(value, (str, int, float)):
            client.log_param(run, option, value)
    return run


def _names(client: Any, run: str) -> list[str]:
    return list(client.get_run(run).data.metrics)


@contextmanager
def _reachable(mlflow: Any) -> Iterator[None]:
    try:
        yield
    except (mlflow.exceptions.MlflowException, OSError) as error:
        what = f"MLflow takes no curves ({error})"
        raise EdgetlError(what, "set MLFLOW_TRACKING_URI to a server's address, or leave --log out") from error


#: By their names behind ``--log``.
PROGRAMS: Mapping[str, Program] = {
    "tensorboard": Program("tensorboard", _tensorboard),
    "mlflow": Program("mlflow", _mlflow),
}
