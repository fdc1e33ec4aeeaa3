"""``edgetl targets``, ``edgetl backbones`` and ``edgetl strategies``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgetl.cli.output import Json, output

if TYPE_CHECKING:
    from edgetl.targets import Target


def _names(target: Target) -> str:
    return f"{target.name} ({', '.join(target.aliases)})" if target.aliases else target.name


def targets(json: Json = False) -> None:
    """What a model can be exported to.

    \b
    edgetl targets
    edgetl targets --json
    """
    from edgetl.reporting.console import print_table
    from edgetl.targets import load_targets

    found = load_targets().values()
    columns = ["target", "runtime", "ISA", "precisions", "what it is"]
    rows = [[_names(t), t.backend, t.isa, " ".join(t.precisions), t.title] for t in found]
    with output(json=json, bars=False) as shown:
        answer = {"targets": [t.to_json() for t in found]}
        shown.show(answer, lambda console: print_table(console, columns, rows))


def backbones(
    pattern: Annotated[str, typer.Argument(help="Search timm and torchvision too: a name or a pattern.")] = "",
    json: Json = False,
) -> None:
    """Pretrained networks to start from.

    \b
    edgetl backbones
    edgetl backbones "mobilenetv4*"
    """
    from edgetl.reporting.console import print_table
    from edgetl.transfer.backbones import list_backbones

    found = [backbone.to_json() for backbone in list_backbones(pattern)]
    columns = ["backbone", "source", "parameters", "input", "licence", "offline"]
    rows = [
        [b["name"], b["source"], b["parameters"], "x".join(map(str, b["input_size"])), b["licence"], b["offline"]]
        for b in found
    ]
    with output(json=json, bars=False) as shown:
        shown.show({"backbones": found}, lambda console: print_table(console, columns, rows))


def strategies(json: Json = False) -> None:
    """Ways to transfer.

    \b
    edgetl strategies
    """
    from edgetl.reporting.console import print_table
    from edgetl.transfer.strategies import list_strategies

    found = list_strategies()
    rows = [[s["name"], s["description"]] for s in found]
    with output(json=json, bars=False) as shown:
        shown.show({"strategies": found}, lambda console: print_table(console, ["strategy", "what it does"], rows))
