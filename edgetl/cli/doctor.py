"""``edgetl doctor``"""

from __future__ import annotations

import edgetl
from edgetl.cli.output import Json, output


def command(json: Json = False) -> None:
    """What works here, and how to get the rest.

    \b
    edgetl doctor
    edgetl doctor --json
    """
    from edgetl.reporting.console import print_table

    with output(json=json, bars=False) as shown:
        found = edgetl.doctor()
        rows = [[c["what"], c["works"], c["version"], c["detail"] or c["remedy"]] for c in found["checks"]]
        columns = ["part", "works", "version", "what to do or what was found"]
        shown.show(found, lambda console: print_table(console, columns, rows))
