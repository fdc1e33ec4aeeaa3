"""``edgetl export``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import edgetl
from edgetl.cli.output import MARGIN, Json, Quiet, ValueRange, output


def command(
    run: Annotated[Path, typer.Argument(help="A run made by edgetl finetune.")],
    target: Annotated[list[str], typer.Option(help="Where it shall run; may be given several times.")],
    out: Annotated[Path, typer.Option(help="OUT/TARGET becomes the bundle.")],
    data: Annotated[str | None, typer.Option(help="Where the run's samples lie now, if they were moved.")] = None,
    precision: Annotated[str | None, typer.Option(help="int8, fp16 or fp32; the target's default.")] = None,
    margin: Annotated[float | None, typer.Option(help=MARGIN)] = None,
    alpha: Annotated[float, typer.Option(help="Chance of passing a model that lost the margin.")] = 0.05,
    samples: Annotated[
        str | None, typer.Option(help="How calibration samples are chosen: random, class-balanced, k-centre.")
    ] = None,
    calibration_images: Annotated[int | None, typer.Option(help="How many; the recipe's number by default.")] = None,
    batch: Annotated[int | None, typer.Option(help="Fixed batch size of the graph; dynamic by default.")] = None,
    bench: Annotated[bool, typer.Option(help="Time it too, where this machine executes the target's runtime.")] = True,
    threads: Annotated[int, typer.Option(help="Threads for timing.")] = 1,
    metric: Annotated[str | None, typer.Option(help="See edgetl tasks; the task's first by default.")] = None,
    value_range: ValueRange = None,
    repair: Annotated[bool, typer.Option(help="Mend int8 where it loses too much on the search split.")] = True,
    budget_minutes: Annotated[float, typer.Option(help="Longest time that mending one bundle may take.")] = 10.0,
    artifact: Annotated[
        Path | None,
        typer.Option(help="What another tool compressed (.onnx, .xml, .tflite): certified as it is."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Compress a run for targets and certify it.

    \b
    edgetl export run --target jetson --target intel-cpu --out out
    edgetl export run --target rpi5 --precision fp32 --out out
    edgetl export run --target x86-generic --samples k-centre --margin 0.005 --out out
    edgetl export run --target intel-cpu --budget-minutes 60 --out out
    edgetl export run --target x86-generic --artifact theirs-int8.onnx --out out

    Where int8 loses too much on the search split, a refitted head, better calibration, bias correction, equalization,
    layers in float, distillation, quantization-aware training and fp16 are tried in turn; an artifact of another tool
    stays as it is. Exit status 3 when a certificate fails. The same command again resumes, or does nothing.
    """
    from edgetl.cli.tables import bundles

    with output(json=json, quiet=quiet) as shown:
        results = edgetl.export(
            run,
            targets=target,
            out=out,
            data=data,
            precision=precision,
            margin=margin,
            alpha=alpha,
            samples=samples,
            calibration_images=calibration_images,
            batch=batch,
            bench=bench,
            threads=threads,
            metric=metric,
            value_range=value_range,
            repair=repair,
            budget_minutes=budget_minutes,
            artifact=artifact,
            progress=shown.progress,
        )
        shown.show({"bundles": [r.to_json() for r in results]}, lambda console: bundles(console, results))
    return 3 if any(r.certificate.verdict == "fail" for r in results) else 0
