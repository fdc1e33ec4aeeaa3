"""``edgetl backbones``, ``edgetl strategies`` and ``edgetl tasks``"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

import edgetl
from edgetl.cli.output import Json, output, say

if TYPE_CHECKING:
    from rich.console import Console


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

    found = [backbone.to_json() for backbone in edgetl.list_backbones(pattern)]
    columns = ["backbone", "source", "parameters", "input", "licence", "offline"]
    rows = [[b["name"], b["source"], b["parameters"], _input(b), b["licence"], b["offline"]] for b in found]
    with output(json=json, bars=False) as shown:
        shown.show({"backbones": found}, lambda console: print_table(console, columns, rows))


def _input(backbone: Mapping[str, Any]) -> str:
    size = "x".join(map(str, backbone["input_size"]))
    return f"{backbone['input']} {size}".rstrip()


def strategies(
    name: Annotated[str, typer.Argument(help="Only this one, with its options.")] = "",
    json: Json = False,
) -> None:
    """Ways to transfer, and what each can be told by --set.

    \b
    edgetl strategies
    edgetl strategies lora
    """
    from edgetl.reporting.console import print_table

    with output(json=json, bars=False) as shown:
        found = edgetl.list_strategies(name)

        def people(console: Console) -> None:
            rows = [[s["name"], s["description"]] for s in found]
            print_table(console, ["strategy", "what it does"], rows)
            if name and found[0]["reference"]:
                say(console, found[0]["reference"])
            if name:
                print_table(console, ["option", "type", "default", "what it is"], list(_told(found[0])))

        shown.show({"strategies": found}, people)


def _told(strategy: Mapping[str, Any]) -> Iterator[list[Any]]:
    """What a strategy can be told and given, one a row."""
    for option in strategy["options"]:
        yield [f"--set {option['name']}=…", option["type"], str(option["default"]), option["about"]]
    for need in strategy["needs"]:
        yield [
            need["given_by"],
            "run" if need["run"] else "data",
            "none" if need["optional"] else "needed",
            need["about"],
        ]


def tasks(json: Json = False) -> None:
    """What a model can be for, and the data that each task reads.

    \b
    edgetl tasks
    edgetl tasks --json
    """
    from edgetl.reporting.console import print_table

    found = edgetl.list_tasks()
    rows = [
        [
            task["name"],
            task["about"],
            "; ".join(f"{kind}: {','.join(columns)}" for kind, columns in task["columns"].items()),
            ", ".join(metric["name"] for metric in task["metrics"]),
        ]
        for task in found
    ]
    columns = ["task", "what it answers", "CSV columns by input", "metrics"]
    with output(json=json, bars=False) as shown:
        shown.show({"tasks": found}, lambda console: print_table(console, columns, rows))
