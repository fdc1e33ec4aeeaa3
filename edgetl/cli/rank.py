"""``edgetl rank``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

import edgetl
from edgetl.base.wording import enumerated, percent
from edgetl.cli.output import Json, Quiet, output, say

if TYPE_CHECKING:
    from rich.console import Console

    from edgetl.workflow.rank_backbones import Choice

_BACKBONE = "Only this one; may be given several times. All whose weights are here by default."
_TARGET = "Also time each as this target runs it, where this machine does."


def command(
    data: Annotated[str, typer.Argument(help="Labelled samples, as for finetune.")],
    backbone: Annotated[list[str] | None, typer.Option(help=_BACKBONE)] = None,
    target: Annotated[str | None, typer.Option(help=_TARGET)] = None,
    task: Annotated[str | None, typer.Option(help="See: edgetl tasks; the data tell it by default.")] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Input side in pixels; each backbone's own by default.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides splits, folds and replicates.")] = 0,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Which backbone suits these samples, told without training it.

    A cross-validated linear head on its features, LogME, NLEEP, its size and its speed. Only samples to learn from
    are read: what certifies stays unseen.

    \b
    edgetl rank photos/
    edgetl rank photos/ --target x86-generic
    edgetl rank photos/ --backbone efficientnet_lite0 --backbone timm/resnet18
    """
    with output(json=json, quiet=quiet) as shown:
        found = edgetl.rank(
            data,
            task=task,
            backbones=backbone or (),
            target=target,
            image_size=image_size,
            seed=seed,
            accelerator=accelerator,
            progress=shown.progress,
        )
        shown.show(found.to_json(), lambda console: _people(console, found))


def _people(console: Console, found: Choice) -> None:
    from edgetl.reporting.console import print_table

    ranking = found.ranking
    columns = ["backbone", ranking.task.metrics[ranking.task.metric].title, "95 % interval", "LogME", "NLEEP"]
    columns += ["parameters", "MACs", *([f"ms, {found.target}"] if found.latencies else [])]
    print_table(console, columns, [_row(found, number) for number in range(len(ranking.rows))])
    best = [row.backbone for row in ranking.rows if row.best]
    told = f"by a linear head, cross-validated on {ranking.samples} samples to learn from"
    if len(best) > 1:
        say(console, f"No difference beyond chance among {enumerated(best)}, {told}: take the smallest or fastest.")
    elif len(ranking.rows) > 1:
        say(console, f"{best[0]} leads beyond chance, {told}.")
    else:
        say(console, f"{best[0]} alone was judged, {told}.")
    for name, why in ranking.left_out.items():
        say(console, f"left out  {name}: {why}")
    if found.untimed:
        say(console, f"not timed: {found.untimed}")


def _row(found: Choice, number: int) -> list[Any]:
    row = found.ranking.rows[number]
    share = found.ranking.task.metrics[row.metric].unit == "share"

    def shown(value: float) -> str:
        return percent(value, 1) if share else f"{value:.4g}"

    cells: list[Any] = [row.backbone, shown(row.probe.value), f"{shown(row.probe.low)} to {shown(row.probe.high)}"]
    cells += [f"{row.logme:.4f}", "" if row.nleep is None else f"{row.nleep:.3f}"]
    cells += [f"{row.parameters / 1e6:.1f} M", "" if row.macs is None else f"{row.macs / 1e6:.0f} M"]
    latency = found.latencies.get(row.backbone)
    return cells if latency is None else [*cells, f"{latency.p50.value:.2f} ({latency.precision})"]
