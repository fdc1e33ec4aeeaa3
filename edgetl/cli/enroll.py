"""``edgetl enroll``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import edgetl
from edgetl.base.wording import counted
from edgetl.cli.output import Json, Output, PublicKey, Quiet, output, say

if TYPE_CHECKING:
    from edgetl.runtime.enrolment import Enrolment


def command(
    bundle: Annotated[Path, typer.Argument(help="A bundle of a run with --strategy prototype, slda, ….")],
    file: Annotated[list[Path], typer.Argument(help="Samples of the class: images, texts (.txt) or arrays.")],
    name: Annotated[str, typer.Option("--class", help="What answers call it; none of the certified classes.")],
    device: Annotated[str | None, typer.Option(help="What computes the features; see edgetl devices.")] = None,
    public_key: PublicKey = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Add a class to a bundle, on the device, by a few samples of it.

    Its row of the head follows from the mean of the features that the bundle's own compressed backbone computes;
    nothing is trained, nothing compiled, and the certified classes' rows stay as they are. Samples that are given later
    join the mean. The class lies in enrolled.head, beside what was certified and signed.

    \b
    edgetl enroll out/rpi5 --class cup cups/*.jpg
    edgetl enroll out/rpi5 --class cup more/*.jpg --device my-pi
    """
    with output(json=json, quiet=quiet) as shown:
        done = edgetl.enroll(bundle, name, file, device=device, public_key=public_key, progress=shown.progress)
        have = done.enrolled[name]
        show(
            shown,
            bundle,
            done,
            f"{name}: {counted(done.added, 'sample')} taken in, {have} in all, {done.bytes} bytes",
        )


def show(shown: Output, bundle: Path, done: Enrolment, line: str) -> None:
    """Print what became of a bundle's head, and what may be said of it."""
    from edgetl.core.bundle import load_bundle
    from edgetl.reporting.enrolment import certified, untested

    said = (certified(done.certified, load_bundle(bundle).certificate), untested(done.enrolled))
    value = {
        "bundle": str(bundle),
        "class": done.name,
        "added": done.added,
        "certified": list(done.certified),
        "enrolled": done.enrolled,
        "bytes": done.bytes,
        "sentences": list(said),
    }
    shown.show(value, lambda console: say(console, line, *said))
