"""A bundle's kit: what an engineer needs to run it on its target, in ``kit/`` of the bundle.

It says nothing of a certificate, so it is made with the bundle, and the manifest has the hash of each of its files. The
same bundle gets the same kit; nothing of this machine is in it.
"""

from __future__ import annotations

from pathlib import Path

from edgetl.base.storage import write_bytes
from edgetl.reporting.kit.hosting import dockerfile, service
from edgetl.reporting.kit.programs import programs, runner_sources
from edgetl.reporting.kit.readme import readme
from edgetl.reporting.kit.subject import Subject

__all__ = ["KIT", "Subject", "kit", "write_kit"]

#: Its folder in a bundle.
KIT = "kit"


def kit(subject: Subject) -> dict[str, bytes]:
    """Its files, by their names in :data:`KIT`.

    Args:
        subject: the bundle.

    Raises:
        EdgetlError: this installation lacks the runner's sources.
    """
    examples = programs(subject) if subject.not_in_c is None else {}
    texts = {
        "README.md": readme(subject, examples),
        "Dockerfile": dockerfile(subject),
        "edgetl.service": service(subject),
        **examples,
    }
    sources = {f"runner/{name}": content for name, content in runner_sources()} if examples else {}
    return {name: text.encode() for name, text in texts.items()} | sources


def write_kit(folder: Path, subject: Subject) -> None:
    """Write the kit into a bundle's folder, whose manifest is made afterwards."""
    for name, content in kit(subject).items():
        file = folder / KIT / name
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, content)
