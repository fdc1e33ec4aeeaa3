"""``edgetl adopt``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import edgetl
from edgetl.base.wording import count, figure, percent
from edgetl.cli.output import GROUP_BY, Json, Quiet, note, output, say

if TYPE_CHECKING:
    from edgetl.core.run import Run

_MODEL = "model.onnx, exported.pt2, timm:NAME@FILE, torchvision:NAME@FILE or hf:FOLDER."
_DATA = "Labelled samples as finetune takes them; a split column or folders say which of them the model was trained on."
_PREPROCESS = "How a sample becomes the model's input: JSON or TOML with the fields of preprocess.json."
_CLASSES = (
    "Names of the classes, one a line, in the order of the outputs; by default the model's, or the data's, sorted."
)
_ANSWERS = "An .npz with logits and sha256 of 24 files or more, from your own program: they must agree within 2 %."
_CLAIM = "METRIC=VALUE, such as accuracy=0.934: must lie in the 99 % interval of what is measured here."
_UNSEEN = "Labelled samples that the model was not trained on: it is certified on these."
_OUTPUT = "Which output to take, where the model has several."


def command(
    model: Annotated[str, typer.Argument(help=_MODEL)],
    data: Annotated[str, typer.Option(help=_DATA)],
    out: Annotated[Path, typer.Option(help="Where the run goes.")],
    task: Annotated[str | None, typer.Option(help="See: edgetl tasks; the data tell it by default.")] = None,
    preprocess: Annotated[Path | None, typer.Option(help=_PREPROCESS)] = None,
    classes: Annotated[Path | None, typer.Option(help=_CLASSES)] = None,
    answers: Annotated[Path | None, typer.Option(help=_ANSWERS)] = None,
    claim: Annotated[str | None, typer.Option(help=_CLAIM)] = None,
    unseen: Annotated[str | None, typer.Option(help=_UNSEEN)] = None,
    output_name: Annotated[str | None, typer.Option("--output", help=_OUTPUT)] = None,
    group_by: Annotated[str | None, typer.Option(metavar="RULE", help=GROUP_BY)] = None,
    seed: Annotated[int, typer.Option(help="Decides the splits.", min=0)] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard what stands in the run folder.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a run of a model that was trained elsewhere.

    Its preprocessing is declared or told by the model, never guessed. Exit status: 3 if the model does not do here
    what you say that it does; the message names why, as far as that is known.

    \b
    edgetl adopt model.onnx --data photos/ --preprocess prep.json --answers mine.npz --out run
    edgetl adopt timm:resnet18@best.pth --data photos.csv --claim accuracy=0.934 --out run
    edgetl adopt hf:my-vit/ --data photos/ --unseen new-photos/ --out run
    """
    with output(json=json, quiet=quiet) as shown:
        run = edgetl.adopt(
            model,
            data,
            out,
            task=task,
            preprocess=preprocess,
            classes=classes,
            answers=answers,
            claim=claim,
            unseen=unseen,
            output=output_name,
            group_by=group_by,
            seed=seed,
            fresh=fresh,
            progress=shown.progress,
        )
        for sentence in (*run.dataset.notes, *(run.adoption.notes if run.adoption else ())):
            note(sentence)
        shown.show(run.to_json(), lambda console: say(console, *_told(run), _sentence(run)))


def _told(run: Run) -> list[str]:
    """Where each field of the input came from, and what was done to the model."""
    assert run.adoption is not None
    record = dict(run.input_record)
    lines = [f"{name} = {record.get(name, '')}  ({told})" for name, told in run.adoption.told_by.items()]
    if run.adoption.names_told_by:
        lines.append(f"{count(len(run.classes))} classes, in the order of {run.adoption.names_told_by}")
    return [*lines, *(f"changed: {clause}" for clause in run.adoption.changes)]


def _sentence(run: Run) -> str:
    assert run.adoption is not None
    metrics = edgetl.list_tasks(run.task)[0]["metrics"]
    value = run.metrics.val.get(run.metrics.metric)
    measured = "undefined" if value is None else figure(value, metrics[0]["unit"])
    checked = {"answers": "its owner's answers", "claim": "its owner's claim"}.get(run.adoption.verified)
    agreed = f"agrees with {checked}{_how(run.adoption.evidence)}" if checked else "was not checked against anything"
    return (
        f"{run.path}: {run.adoption.model}, {run.task}; {metrics[0]['title']} {measured} on "
        f"{count(int(run.metrics.val.get('n', 0)))} samples; {agreed}. "
        f"Next: edgetl export {run.path} --target jetson --out out"
    )


def _how(evidence: Any) -> str:
    answers = evidence.get("answers")
    return f" ({percent(answers['distance'], 2)} of their spread apart on {answers['n']} files)" if answers else ""
