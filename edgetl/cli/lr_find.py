"""``edgetl lr-find``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import edgetl
from edgetl.base.errors import EdgetlError
from edgetl.base.storage import write_bytes
from edgetl.cli.output import Json, Quiet, output, say


def command(
    data: Annotated[str, typer.Argument(help="Labelled samples, as for finetune.")],
    out: Annotated[Path | None, typer.Option(help="The picture: an SVG file.")] = None,
    strategy: Annotated[str, typer.Option(help="See: edgetl strategies.")] = "fine-tune",
    backbone: Annotated[str | None, typer.Option(help="See: edgetl backbones.")] = None,
    task: Annotated[str | None, typer.Option(help="See: edgetl tasks; the data tell it by default.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side in pixels; the backbone's own by default.")] = None,
    batch_size: Annotated[int, typer.Option(help="Samples a step, as training will have.")] = 32,
    steps: Annotated[int, typer.Option(help="From the lowest rate to the highest.")] = 100,
    seed: Annotated[int, typer.Option(help="Decides splits, order and augmentation.")] = 0,
    weights: Annotated[str | None, typer.Option(help="Pretrained weights: a local file, or 'none'.")] = None,
    accelerator: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, 32-true, bf16-mixed or 16-mixed.")] = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Which learning rate suits these samples: the loss while it rises, and where it falls fastest.

    \b
    edgetl lr-find photos/ --out rates.svg
    edgetl lr-find photos/ --strategy lora --backbone efficientnet_lite2
    """
    if out is not None and not out.absolute().parent.is_dir():
        raise EdgetlError(f"there is no folder {out.absolute().parent}", "choose another --out")
    with output(json=json, quiet=quiet) as shown:
        found = edgetl.find_rate(
            data,
            task=task,
            backbone=backbone,
            strategy=strategy,
            seed=seed,
            batch_size=batch_size,
            image_size=image_size,
            weights=weights,
            accelerator=accelerator,
            precision=precision,
            steps=steps,
            progress=shown.progress,
        )
        if out is not None:
            from edgetl.reporting.rate_search import picture

            columns = (found.rates.tolist(), found.losses.tolist(), found.smooth.tolist())
            write_bytes(out, picture(*columns, found.suggested).encode())
        picked = {"picture": None if out is None else str(out)}
        shown.show(
            {**found.to_json(), **picked}, lambda console: say(console, _sentence(found.suggested, found.highest, out))
        )


def _sentence(suggested: float | None, highest: float, out: Path | None) -> str:
    where = "" if out is None else f" The curve is in {out}."
    if suggested is None:
        return f"The loss falls at no rate: the fitted head is as good as these steps make it.{where}"
    return (
        f"The loss falls fastest at {suggested:.2g} and is lowest at {highest:.2g}: "
        f"--learning-rate {suggested:.1g}, and none above {highest:.1g}.{where}"
    )
