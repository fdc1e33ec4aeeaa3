"""``edgetl devices``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import edgetl
from edgetl.cli.output import Json, Quiet, note, output, say

app = typer.Typer(
    help="Places where a bundle runs.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@app.callback()
def show(context: typer.Context, json: Json = False) -> None:
    """Places where a bundle runs: this machine, an emulated one, or another one behind SSH.

    \b
    edgetl devices
    edgetl devices create pi --arch arm64
    edgetl devices add jetson ssh://user@host:22
    edgetl devices probe jetson
    edgetl devices remove jetson
    """
    if context.invoked_subcommand is not None:
        return
    from edgetl.reporting.console import print_table

    with output(json=json, bars=False) as shown:
        found = [
            {**device.to_json(), "probed": edgetl.devices.description(device.name)} for device in edgetl.list_devices()
        ]
        rows = [[d["name"], d["kind"], d["arch"], d["executed"], d["where"]] for d in found]
        columns = ["device", "kind", "arch", "results count as", "where"]
        shown.show({"devices": found}, lambda console: print_table(console, columns, rows))


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    arch: Annotated[str, typer.Option(help="arm64.")] = "arm64",
    source: Annotated[
        Path | None, typer.Option("--from", help="A root file system: a folder, or what docker export writes.")
    ] = None,
    openvino: Annotated[bool, typer.Option("--with-openvino", help="Install OpenVINO there too.")] = False,
    litert: Annotated[bool, typer.Option("--with-litert", help="Install LiteRT there too.")] = False,
    tokenizers: Annotated[bool, typer.Option("--with-tokenizers", help="Install what texts need there too.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make an emulated device: a real root file system of that architecture, run by QEMU.

    \b
    edgetl devices create pi --arch arm64
    edgetl devices create shop --arch arm64 --from rootfs.tar
    """

    with output(json=json, quiet=quiet) as shown:
        offered = {"openvino": openvino, "ai_edge_litert": litert, "tokenizers": tokenizers}
        extras = [module for module, wanted in offered.items() if wanted]
        device = edgetl.create_device(name, arch, extras=extras, source=source, progress=shown.progress)
        shown.show(device.to_json(), lambda console: say(console, f"created the emulated device {name}"))


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    url: Annotated[str, typer.Argument(help="ssh://user@host:port, with ?python=PATH if need be.")],
    no_probe: Annotated[bool, typer.Option("--no-probe", help="Do not contact it now.")] = False,
    require_signature: Annotated[
        Path | None, typer.Option(help="Public key that must have signed every bundle that goes there.")
    ] = None,
    json: Json = False,
) -> None:
    """Remember a real device that is reached by SSH, and what it is if it answers.

    \b
    edgetl devices add jetson ssh://nvidia@192.168.1.20
    edgetl devices add later ssh://pi@raspberrypi.local --no-probe
    """
    import dataclasses

    with output(json=json, bars=False) as shown:
        edgetl.add_device(name, url, require_signature=require_signature)
        found = None if no_probe else edgetl.probe_device(name)
        if found is not None and not found.reachable:
            note(f"note: {found.reason}: {found.remedy}")
        about = f" ({found.machine.cpu_model})" if found is not None and found.machine.cpu_model else ""
        value = {**edgetl.find_device(name).to_json(), "probe": None if found is None else dataclasses.asdict(found)}
        shown.show(value, lambda console: say(console, f"added {name}{about}"))


@app.command()
def remove(name: Annotated[str, typer.Argument(help="Which one.")], json: Json = False) -> None:
    """Forget a device; an emulated one's files are deleted."""

    with output(json=json, bars=False) as shown:
        edgetl.remove_device(name)
        shown.show({"removed": name}, lambda console: say(console, f"removed {name}"))


@app.command()
def probe(name: Annotated[str, typer.Argument(help="Which one.")], json: Json = False) -> None:
    """Ask a device what it is and whether a bundle can run there; the answer is kept with its description.

    \b
    edgetl devices probe local
    edgetl devices probe jetson --json
    """
    import dataclasses

    from edgetl.cli.tables import probed

    with output(json=json, bars=False) as shown:
        found = edgetl.probe_device(name)
        shown.show(dataclasses.asdict(found), lambda console: probed(console, name, found))
