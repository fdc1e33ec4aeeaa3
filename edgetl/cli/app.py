"""The commands, in the order in which a user meets them."""

from __future__ import annotations

from typing import Annotated

import typer

import edgetl
from edgetl.cli import (
    adopt,
    advise,
    bench,
    demo,
    deploy,
    devices,
    doctor,
    enroll,
    export,
    finetune,
    forget,
    lists,
    lr_find,
    monitor,
    pack,
    predict,
    rank,
    report,
    retention,
    rollback,
    serve,
    shift,
    sign,
    soup,
    targets,
    unpack,
    verify,
)
from edgetl.cli.journey import command as journey

_ABOUT = """Take a fine-tuned model to a device and prove that the transfer survived.

\b
  edgetl finetune photos/ --out run    (or: edgetl adopt model.onnx --data photos/ --out run)
  edgetl export run --target jetson --target intel-cpu --out out
  edgetl report out/* --out report.html
  edgetl run journey.toml              (all of it, from a file)

Every command takes --json. Exit status: 0 done, 2 bad input or a device that fails, 3 a certificate fails,
4 underpowered, 1 a bug.
"""


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"edgetl {edgetl.__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


def build() -> typer.Typer:
    """The whole command line as one typer application."""
    app = typer.Typer(
        help=_ABOUT,
        no_args_is_help=True,
        # Rich help and tracebacks would double the time that --help takes.
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(_root)
    for module in (
        demo, finetune, adopt, export, verify, predict, enroll, forget, bench, sign, pack, unpack, deploy, rollback,
        serve, monitor, report,
    ):  # fmt: skip
        app.command(module.__name__.rsplit(".", 1)[1])(module.command)
    app.command("run")(journey.command)
    app.add_typer(targets.app, name="targets")
    app.command("backbones")(lists.backbones)
    app.command("strategies")(lists.strategies)
    app.command("tasks")(lists.tasks)
    app.command("advise")(advise.command)
    app.command("rank")(rank.command)
    app.command("lr-find")(lr_find.command)
    app.command("soup")(soup.command)
    app.command("retention")(retention.command)
    app.command("shift")(shift.command)
    app.add_typer(devices.app, name="devices")
    app.command("doctor")(doctor.command)
    return app
