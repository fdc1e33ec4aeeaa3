"""``edgetl finetune``"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import edgetl
from edgetl.base.errors import EdgetlError
from edgetl.base.wording import amount, count, enumerated, number, percent
from edgetl.cli.output import GROUP_BY, Json, Output, Quiet, note, output, say

if TYPE_CHECKING:
    from rich.console import Console

    from edgetl.core.run import Run
    from edgetl.core.transfer_outcome import TransferOutcome
    from edgetl.transfer.repeated import Repeated

_BASELINE = "Also train what the transfer is measured against: scratch or probe. A finished run gets it added."
_DATA = (
    "A folder of class folders, or of train, val and test that hold them; a CSV (path or text, and label, labels or "
    "target); an .npz of arrays; or 'digits'."
)
_BACKBONE = "See: edgetl backbones; efficientnet_lite0 for images, minilm for texts, mlp for arrays by default."
_SET = "An option of the strategy; see: edgetl strategies NAME. May be given several times."
_TARGET = (
    "Samples without labels, where the strategy takes them: a folder, or a CSV with path or text. Of a strategy "
    "between two domains they are the target, and rows with a label certify."
)
_RETAIN = "Labelled samples of the same classes to go on learning from, where the strategy takes them."
_VIA = (
    "Transfer by way of these data first, each stage from the weights of the one before; a stage without labels is "
    "answered by the one before. May be given several times."
)
_AUGMENT = "How training images vary: none, light (the default), backbone, strong, or a TOML file of transforms."
_LOG = "Learning curves: tensorboard, whose files lie in RUN/tensorboard, or mlflow, at MLFLOW_TRACKING_URI."
_REPEAT = "Train with so many seeds, in OUT/seed-N, and tell how far they are apart."
_BATCH = "Samples a step, over all devices; auto finds by trial how many pay, and the run keeps the number."
_DEVICES = "Processes or GPUs to train on (Lightning Fabric, DDP)."


def _batch_size(given: str) -> int | Literal["auto"]:
    try:
        return "auto" if given == "auto" else int(given)
    except ValueError as error:
        raise typer.BadParameter(f"'{given}' is neither a whole number nor auto") from error


def command(
    data: Annotated[str, typer.Argument(help=_DATA)],
    out: Annotated[Path, typer.Option(help="Where the run goes; the same command resumes it.")],
    task: Annotated[str | None, typer.Option(help="See: edgetl tasks; the data tell it by default.")] = None,
    backbone: Annotated[str | None, typer.Option(help=_BACKBONE)] = None,
    strategy: Annotated[str, typer.Option(help="See: edgetl strategies.")] = "fine-tune",
    options: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help=_SET)] = None,
    teacher: Annotated[Path | None, typer.Option(help="A finished run to learn from, where the strategy does.")] = None,
    target_data: Annotated[Path | None, typer.Option(help=_TARGET)] = None,
    retain: Annotated[Path | None, typer.Option(help=_RETAIN)] = None,
    from_run: Annotated[Path | None, typer.Option("--from", help="A finished run to go on from.")] = None,
    via: Annotated[list[Path] | None, typer.Option(help=_VIA)] = None,
    augment: Annotated[str | None, typer.Option(help=_AUGMENT)] = None,
    group_by: Annotated[str | None, typer.Option(metavar="RULE", help=GROUP_BY)] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training samples.")] = None,
    seed: Annotated[int, typer.Option(help="Decides splits, order, augmentation and initialisation.")] = 0,
    batch_size: Annotated[Any, typer.Option(parser=_batch_size, metavar="INTEGER|auto", help=_BATCH)] = 32,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Input side in pixels; the backbone's own by default.")] = None,
    weights: Annotated[str | None, typer.Option(help="Pretrained weights: a local file, or 'none'.")] = None,
    devices: Annotated[int, typer.Option(help=_DEVICES)] = 1,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, 32-true, bf16-mixed or 16-mixed.")] = "auto",
    baseline: Annotated[str | None, typer.Option(help=_BASELINE)] = None,
    log: Annotated[str | None, typer.Option(help=_LOG)] = None,
    repeat: Annotated[int | None, typer.Option(help=_REPEAT)] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard what stands in the run folder.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train on labelled images, texts or arrays.

    Starts from a pretrained backbone; the same command resumes after an interruption.

    \b
    edgetl finetune photos/ --out run
    edgetl finetune parts.csv --backbone efficientnet_lite2 --strategy linear-probe --out run
    edgetl finetune reviews.csv --out run
    edgetl finetune digits --image-size 64 --epochs 3 --out run
    edgetl finetune photos/ --out run --baseline scratch
    edgetl finetune photos/ --out adapted --strategy lora --set rank=16
    edgetl finetune photos/ --out small --strategy distillation --teacher run --target-data unlabelled/
    edgetl finetune photos/ --out there --strategy coral --target-data from-the-line/
    edgetl finetune photos/ --out run --via other-plant/ --via between/
    edgetl finetune photos/ --out run --group-by duplicates
    edgetl finetune photos/ --out run --batch-size auto
    edgetl finetune photos/ --out run --log tensorboard
    edgetl finetune photos/ --out runs --repeat 3
    """
    with output(json=json, quiet=quiet) as shown:
        train = partial(
            edgetl.finetune,
            data,
            task=task,
            backbone=backbone,
            strategy=strategy,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            image_size=image_size,
            weights=weights,
            devices=devices,
            accelerator=accelerator,
            precision=precision,
            baseline=baseline,
            set=_values(options or []),
            teacher=teacher,
            target_data=target_data,
            retain=retain,
            from_run=from_run,
            augment=augment,
            group_by=group_by,
            log=log,
            fresh=fresh,
            progress=shown.progress,
        )
        if repeat is not None:
            if via:
                raise EdgetlError("--via and --repeat both make runs of their own", "give one of them")
            _repeat(shown, edgetl.repeat(data, out, repeat, seed=seed, **train.keywords))
            return
        run = edgetl.staged(data, out, via, seed=seed, **train.keywords) if via else train(out=out, seed=seed)
        _say_of_the_data(run)
        outcome = edgetl.transfer_outcome(run)
        value = {**run.to_json(), "transfer": outcome.to_json()}
        shown.show(value, lambda console: _outcome(console, run, outcome))


def _outcome(console: Console, run: Run, outcome: TransferOutcome) -> None:
    from edgetl.reporting.transfer import sentences

    # Why layers stay was said with what was found in the data.
    for sentence in (_sentence(run), *sentences(run, replace(outcome, frozen=""))):
        say(console, sentence)


def _repeat(shown: Output, found: Repeated) -> None:
    """Say how far the runs of several seeds are apart."""
    _say_of_the_data(found.runs[0])
    value = {
        "runs": [{**run.to_json(), "transfer": edgetl.transfer_outcome(run).to_json()} for run in found.runs],
        "spread": {name: asdict(spread) for name, spread in found.spreads.items()},
        "middle": str(found.middle.path),
    }
    shown.show(value, lambda console: _people(console, found))


def _people(console: Console, found: Repeated) -> None:
    from edgetl.reporting.console import print_table

    metrics = edgetl.list_tasks(found.runs[0].task)[0]["metrics"]
    rows = [
        [metric["title"], *(_figure(value, metric["unit"]) for value in (spread.median, spread.low, spread.high))]
        for metric in metrics
        if (spread := found.spreads.get(_key(metric))) is not None
    ]
    print_table(console, ["on validation samples", "median", "lowest", "highest"], rows)
    middle = found.middle.path
    say(
        console,
        f"{len(found.runs)} seeds. The middle one, to go on with: edgetl export {middle} --target jetson --out out",
    )


def _values(given: list[str]) -> dict[str, str]:
    """What ``--set`` gave, by name.

    Raises:
        EdgetlError: no equals sign, or one name twice.
    """
    found: dict[str, str] = {}
    for words in given:
        name, equals, value = (part.strip() for part in words.partition("="))
        if not name or not equals:
            raise EdgetlError(f"--set {words} gives no value", "write --set NAME=VALUE")
        if name in found:
            raise EdgetlError(f"--set {name} is given twice", "give it once")
        found[name] = value
    return found


def _say_of_the_data(run: Run) -> None:
    found = [part for name in ("batch_size", "frozen") if isinstance(part := run.lineage.get(name), Mapping)]
    reasons = [str(part.get("reason") or "") for part in found]
    told = run.adaptation.notes if run.adaptation else ()
    for sentence in (*run.dataset.notes, *told, *filter(None, (*reasons, str(run.lineage.get("choice") or "")))):
        note(sentence)
    if run.dataset.ignored:
        note("ignored " + enumerated(f"{name} ({n})" for name, n in run.dataset.ignored.items()))
    for skipped in run.dataset.skipped[:20]:
        note(f"left out {skipped.path}: {skipped.reason}")
    if len(run.dataset.skipped) > 20:
        note(f"… and {len(run.dataset.skipped) - 20} more, named in {run.path}/splits.json")


def _sentence(run: Run) -> str:
    val = run.metrics.val
    metrics = edgetl.list_tasks(run.task)[0]["metrics"]
    figures = [f"{metric['title']} {_figure(val.get(_key(metric)), metric['unit'])}" for metric in metrics]
    classes = f", {len(run.classes)} classes" if run.classes else ""
    return (
        f"{run.path}: {run.backbone}, {run.strategy}{classes}; on {count(int(val.get('n', 0)))} validation samples "
        f"{', '.join(figures)}{_against_baseline(run, metrics[0])}{_on_target(run, metrics[0])}. "
        f"Next: edgetl export {run.path} --target jetson --out out"
    )


def _on_target(run: Run, metric: Mapping[str, Any]) -> str:
    if run.adaptation is None or not run.adaptation.labelled:
        return ""
    found = run.adaptation.search
    return f"; on {count(int(found['n']))} of the target {_figure(found.get(_key(metric)), metric['unit'])}"


def _key(metric: Mapping[str, Any]) -> str:
    return str(metric["name"]).replace("-", "_")


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return "undefined"
    return percent(value, 1) if unit == "share" else number(value)


def _against_baseline(run: Run, metric: Mapping[str, Any]) -> str:
    if run.baseline is None or run.gain is None:
        return ""
    kind = {"scratch": "the same network from scratch", "probe": "a linear probe"}[run.baseline.kind]
    gain = abs(run.gain)
    gap = "no gap" if gain == 0 else f"{amount(gain, metric['unit'])} {'worse' if run.gain > 0 else 'better'}"
    return f"; the baseline, {kind}, {_figure(run.baseline.metrics.val.get(_key(metric)), metric['unit'])}: {gap}"
