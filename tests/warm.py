"""A process that has imported what takes seconds, and forks for each command: the same ``main``, sooner.

    python -m tests.warm

reads one JSON object a line (arguments, environment, folder, and the files that take both streams) and answers each
with the exit status. The child is a process of its own to its end, but for the imports.
"""

from __future__ import annotations

import json
import os
import signal
import sys

#: Commands that import torch; whatever else starts in a fraction of a second, and is started as a user starts it.
HEAVY = frozenset({"adopt", "advise", "export", "finetune", "lr-find", "rank", "retention", "run", "shift", "soup"})
#: Variables that a command reads when it runs: any other may matter to what is imported already.
READ_LATE = frozenset({"COLUMNS", "EDGETL_HOME", "HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"})


def serve() -> None:
    """Answer until the input ends."""
    import edgetl.compress.export
    import edgetl.pipeline
    import edgetl.transfer.finetune
    import edgetl.workflow.adoption.adopt  # noqa: F401

    for line in sys.stdin:
        asked = json.loads(line)
        sys.stdout.flush()
        child = os.fork()
        if not child:
            become(asked)
            return
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def become(asked: dict[str, object]) -> None:
    """Be the command, with its streams, folder and environment, to the end of this process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(asked["environment"])  # type: ignore[arg-type]
    os.chdir(str(asked["folder"]))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number, name in ((1, "out"), (2, "err")):
        stream = os.open(str(asked[name]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(stream, number)
        os.close(stream)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False, buffering=1)  # noqa: SIM115
    from edgetl.cli import main

    main([str(word) for word in asked["arguments"]])  # type: ignore[attr-defined]


if __name__ == "__main__":
    serve()
