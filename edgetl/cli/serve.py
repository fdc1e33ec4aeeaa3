"""``edgetl serve``"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import edgetl
from edgetl.cli.output import Json, PublicKey, note, output, say

if TYPE_CHECKING:
    from edgetl.serving.server import Listening


def command(
    bundle: Annotated[list[Path], typer.Argument(help="Bundles, or links to them such as NAME/current of a deploy.")],
    name: Annotated[
        list[str] | None, typer.Option(help="Name in URLs, once for each bundle, in order; its folder's by default.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 is every one of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 is any free one.")] = 8000,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of one inference at a time; several at once on all cores by default.")
    ] = None,
    queue: Annotated[int, typer.Option(min=0, help="Requests of a model that may wait; more are answered 503.")] = 64,
    max_body: Annotated[float, typer.Option(help="MiB of a request; more is answered 413.")] = 16.0,
    max_batch: Annotated[int, typer.Option(min=1, help="Samples of a request; more are answered 400.")] = 32,
    public_key: PublicKey = None,
    json: Json = False,
) -> None:
    """Answer over HTTP: the Open Inference Protocol (KServe v2, tritonclient), and a file in, its answer out.

    Each bundle passes its self-test here before anything is served. A link is followed: after edgetl deploy, the new
    release takes the next requests once it has passed its own. Takes the extra serve.

    \b
    edgetl serve out/x86-generic
    edgetl serve ~/.local/share/edgetl/camera/current --port 8080
    edgetl serve out/left out/right --name left --name right --queue 16
    curl --data-binary @photo.jpg http://127.0.0.1:8000/v2/models/x86-generic/predict

    Exit status: 0 asked to end (SIGTERM, Ctrl-C), every request answered; 2 a bundle that fails, a port that is taken.
    """
    with output(json=json, bars=False) as shown:

        def started(at: Listening) -> None:
            lines = [f"{name}: {at.url}/v2/models/{name} ({digest[:12]})" for name, digest in at.models.items()]
            value = {"url": at.url, "host": at.host, "port": at.port, "models": dict(at.models)}
            shown.show(value, lambda console: say(console, *lines))

        edgetl.serve(
            bundle,
            names=name or (),
            host=host,
            port=port,
            threads=threads,
            queue=queue,
            max_body=max_body,
            max_batch=max_batch,
            public_key=public_key,
            tell=note,
            started=started,
        )
