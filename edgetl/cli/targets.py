"""``edgetl targets``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import edgetl
from edgetl.cli.output import Json, output, say

if TYPE_CHECKING:
    from rich.console import Console

    from edgetl.core.targets import Target

app = typer.Typer(help="What a model can be exported to.", invoke_without_command=True, rich_markup_mode=None)


def _names(target: Target) -> str:
    return f"{target.name} ({', '.join(target.aliases)})" if target.aliases else target.name


@app.callback()
def show(context: typer.Context, json: Json = False) -> None:
    """What a model can be exported to.

    \b
    edgetl targets
    edgetl targets --json
    edgetl targets check model.onnx --target jetson
    """
    if context.invoked_subcommand is not None:
        return
    from edgetl.reporting.console import print_table

    found = edgetl.load_targets().values()
    columns = ["target", "runtime", "ISA", "precisions", "what it is"]
    rows = [[_names(t), t.backend, t.isa, " ".join(t.precisions), t.title] for t in found]
    with output(json=json, bars=False) as shown:
        answer = {"targets": [t.to_json() for t in found]}
        shown.show(answer, lambda console: print_table(console, columns, rows))


@app.command()
def check(
    model: Annotated[Path, typer.Argument(help="An ONNX file, or a bundle made by edgetl export.")],
    target: Annotated[str, typer.Option(help="A target that runs TensorRT.")] = "jetson",
    tensorrt: Annotated[
        str, typer.Option(help="Ask for this version alone, such as 8.6, instead of those that the target may have.")
    ] = "",
    jetpack: Annotated[str, typer.Option(help="Ask for the TensorRT of this JetPack, such as 6.0.")] = "",
    json: Json = False,
) -> int:
    """What the target's TensorRT will refuse, told before the trip to the device.

    Judged by dated tables of which operators, types and opsets each version documents. What they do not tell is
    called unknown, never fine.

    \b
    edgetl targets check model.onnx --target jetson
    edgetl targets check out/jetson --tensorrt 11.1
    edgetl targets check out/jetson --jetpack 6.0

    Exit status: 0 some version takes it, as far as the tables tell; 2 every version refuses it.
    """
    from edgetl.backends.tensorrt_tables import of_jetpack
    from edgetl.backends.tensorrt_verdict import judge

    with output(json=json, bars=False) as shown:
        answer = judge(model, target, of_jetpack(jetpack) if jetpack else tensorrt)
        shown.show(answer, lambda console: _print(console, answer))
    return 2 if answer["verdict"] == "refused" else 0


def _print(console: Console, answer: dict[str, Any]) -> None:
    for version in answer["versions"]:
        system = f" ({version['system']})" if version["system"] else ""
        table = f", by the table of {version['table']}" if version["table"] else ""
        say(console, f"TensorRT {version['tensorrt']}{system}: {version['verdict']}{table}")
        for objection in version["objections"]:
            say(console, f"  {'refused' if objection['certain'] else 'unknown'}: {objection['text']}")
            if objection["remedy"]:
                say(console, f"    {objection['remedy']}")
