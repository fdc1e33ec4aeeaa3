"""``edgetl verify``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import edgetl
from edgetl.cli.enrolled import show_enrolled
from edgetl.cli.output import MARGIN, Json, Output, PublicKey, Quiet, ValueRange, output, say

_SEQUENTIAL = "May be read after every new batch of samples, for about twice as many; see its notes."
_STATUS = {"pass": 0, "fail": 3, "underpowered": 4}


def command(
    bundle: Annotated[Path, typer.Argument(help="A bundle made by edgetl export.")],
    data: Annotated[str | None, typer.Option(help="Run the certify samples again, found here by their hashes.")] = None,
    margin: Annotated[float | None, typer.Option(help=MARGIN)] = None,
    alpha: Annotated[float, typer.Option(help="Chance of passing a model that lost the margin.")] = 0.05,
    metric: Annotated[str | None, typer.Option(help="See edgetl tasks; the task's first by default.")] = None,
    value_range: ValueRange = None,
    sequential: Annotated[bool, typer.Option("--sequential", help=_SEQUENTIAL)] = False,
    device: Annotated[str | None, typer.Option(help="Where to run; see edgetl devices.")] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="Answers of your own program: an .npz with logits and sha256.")
    ] = None,
    corruptions: Annotated[
        bool,
        typer.Option("--corruptions", help="Also under blur, noise, JPEG, brightness and contrast: classes of images."),
    ] = False,
    runner: Annotated[
        str | None, typer.Option(help="Through the C runner: c, or its program for the device (edgetl-run).")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Samples without labels: a folder, or a CSV file with path or text.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Of those on which the models differ: to_label.csv.")] = None,
    run: Annotated[
        Path | None, typer.Option(help="With --images: its trained model answers, not the bundle's float ONNX file.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only: does the certificate follow from this bundle?")] = False,
    enrolled: Annotated[bool, typer.Option("--enrolled", help="Only: the head that classes were added to.")] = False,
    held_out: Annotated[
        Path | None, typer.Option(help="With --enrolled: a folder for each added class, of samples not enrolled.")
    ] = None,
    public_key: PublicKey = None,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Test whether the transfer survived.

    Is the deployed model as good as the trained one, on samples that neither training nor compression saw?

    \b
    edgetl verify out/jetson --device my-jetson
    edgetl verify out/intel-cpu --margin 0.005
    edgetl verify out/intel-cpu --corruptions
    edgetl verify out/rpi5 --predictions answers.npz
    edgetl verify out/intel-cpu --runner c
    edgetl verify out/intel-cpu --sequential
    edgetl verify out/intel-cpu --images new-photos
    edgetl verify out/intel-cpu --images new-photos --labels to_label.csv
    edgetl verify out/intel-cpu --check
    edgetl verify out/rpi5 --enrolled --held-out held/

    --check works out again whatever the bundle's files determine, and says what is taken on trust. --public-key refuses
    a bundle that this key did not sign.

    --images needs labels only where the two models differ, and none where that is rare enough: else to_label.csv and
    to_label.html in the bundle ask for them.

    Exit status: 0 pass, 3 fail, 4 underpowered. Without --data, --images, --device and --runner, saved predictions are
    judged again.
    """
    from edgetl.reporting.outcome import print_certificate

    with output(json=json, quiet=quiet, bars=not check) as shown:
        if check:
            return _checked(bundle, public_key, shown)
        if enrolled:
            tested = edgetl.verify_enrolled(
                bundle,
                data=data,
                held_out=held_out,
                margin=margin,
                alpha=alpha,
                device=device,
                public_key=public_key,
                progress=shown.progress,
            )
            show_enrolled(shown, tested)
            return _STATUS[tested.certificate.verdict]
        certificate = edgetl.verify(
            bundle,
            data=data,
            margin=margin,
            alpha=alpha,
            metric=metric,
            value_range=value_range,
            sequential=sequential,
            device=device,
            predictions=predictions,
            corruptions=corruptions,
            runner=runner,
            images=images,
            labels=labels,
            run=run,
            public_key=public_key,
            progress=shown.progress,
        )
        shown.show(certificate.to_json(), lambda console: print_certificate(console, certificate))
    return _STATUS[certificate.verdict]


def _checked(bundle: Path, public_key: Path | None, shown: Output) -> int:
    """Print whether the certificate follows from its bundle; the exit status."""
    from edgetl.workflow.audit import audit

    found = audit(bundle, public_key)
    answer = {"bundle": str(bundle), "belongs": found.problem is None, "problem": found.problem}
    answer |= {"signed_by": found.signed_by or None, "claimed": list(found.claimed), "trust": found.trust}
    sentence = found.problem or "the certificate is this bundle's, unaltered, and follows from its files"
    shown.show(answer, lambda console: say(console, f"{bundle}: {sentence}", found.trust))
    return 0 if found.problem is None else 3
