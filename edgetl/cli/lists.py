"""``edgetl targets``, ``edgetl backbones`` and ``edgetl strategies``"""

from __future__ import annotations

from typing import Annotated

import typer

from edgetl.cli.output import Json, output
from edgetl.reporting.console import print_table


def targets(json: Json = False) -> None:
    """What a model can be exported to.

    \b
    edgetl targets
    edgetl targets --json
    """
    from edgetl.targets import load_targets

    found = load_targets().values()
    columns = ["target", "what it is", "runtime", "ISA", "precisions", "compiled on"]
    rows = [
        [
            ", ".join([t.name, *t.aliases]),
            t.title,
            t.backend,
            t.isa,
            " ".join(t.precisions),
            t.compile_on,
        ]
        for t in found
    ]
    with output(json=json, bars=False) as shown:
        answer = {"targets": [t.to_json() for t in found]}
        shown.show(answer, lambda console: print_table(console, columns, rows))


def backbones(
    contains: Annotated[str, typer.Argument(help="Search timm and torchvision too, for names with this.")] = "",
    json: Json = False,
) -> None:
    """Pretrained networks to start from; timm's and torchvision's are found by name.

    \b
    edgetl backbones
    edgetl backbones mobilenetv4
    """
    from edgetl.transfer.backbones import list_backbones

    found = list_backbones(contains)
    columns = ["backbone", "source", "parameters", "input", "licence", "weights", "offline"]
    rows = [
        [
            b["name"],
            b["source"],
            b.get("parameters"),
            b.get("input_size"),
            b.get("licence"),
            b.get("weights"),
            b.get("offline"),
        ]
        for b in found
    ]
    with output(json=json, bars=False) as shown:
        shown.show({"backbones": found}, lambda console: print_table(console, columns, rows))


def strategies(json: Json = False) -> None:
    """Ways to transfer.

    \b
    edgetl strategies
    """
    from edgetl.transfer.strategies import list_strategies

    found = list_strategies()
    rows = [[s["name"], s["summary"]] for s in found]
    with output(json=json, bars=False) as shown:
        shown.show({"strategies": found}, lambda console: print_table(console, ["strategy", "what it does"], rows))
