"""``edgetl predict``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import edgetl
from edgetl.base.wording import number, percent
from edgetl.cli.output import Json, PublicKey, Quiet, output, say


def command(
    bundle: Annotated[Path, typer.Argument(help="A bundle made by edgetl export.")],
    file: Annotated[list[Path], typer.Argument(help="Images, texts (.txt) or arrays (.npy, .npz).")],
    device: Annotated[str | None, typer.Option(help="Where to run; see edgetl devices.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many of the most probable labels to name.")] = 5,
    public_key: PublicKey = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Answer for files, as a program on the device would get it.

    \b
    edgetl predict out/x86-generic photo.jpg
    edgetl predict out/x86-generic photos/*.jpg --top 1 --json
    edgetl predict out/jetson photo.jpg --device my-jetson
    """
    with output(json=json, quiet=quiet) as shown:
        found = edgetl.predict(bundle, file, device=device, top=top, public_key=public_key, progress=shown.progress)
        answers = [{"file": str(path), **answer.to_json()} for path, answer in zip(file, found, strict=True)]
        lines = [f"{path}: {_sentence(answer)}" for path, answer in zip(file, found, strict=True)]
        shown.show({"predictions": answers}, lambda console: say(console, *lines))


def _sentence(answer: edgetl.Prediction) -> str:
    if answer.tasks:
        return "; ".join(f"{name}: {_sentence(own)}" for name, own in answer.tasks.items())
    if answer.value is not None:
        return number(answer.value)
    labels = ", ".join(f"{one.label} {percent(one.probability, 1)}" for one in answer.labels) or "no label"
    others = ", ".join(f"{one.label} {percent(one.probability, 1)}" for one in answer.top if one not in answer.labels)
    return f"{labels}; then {others}" if others else labels
