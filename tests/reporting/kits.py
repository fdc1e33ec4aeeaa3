"""Kits of bundles that tests make by hand, and what their pages print."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgetl.core.bundle import Bundle, load_bundle, write_manifest
from edgetl.inputs import Tensors, input_of
from edgetl.inputs.tensor import ArraySpec
from edgetl.reporting.kit import Subject, write_kit


def subject_of(bundle: Bundle) -> Subject:
    """What export would tell a bundle's kit."""
    deployed = bundle.artifact()
    return Subject(
        name=bundle.manifest.name or bundle.path.name,
        target=bundle.manifest.target,
        task=bundle.manifest.task,
        classes=bundle.labels,
        definition=input_of(bundle),
        backend=deployed.backend,
        precision=deployed.precision,
        versions=bundle.manifest.versions,
    )


def equipped(bundle: Bundle, arrays: Sequence[str] = ()) -> Bundle:
    """A bundle with its kit; ``arrays`` are names of others than it takes."""
    subject = subject_of(bundle)
    if arrays:
        subject = replace(subject, definition=Tensors(tuple(ArraySpec(name, (2, 3)) for name in arrays)))
    write_kit(bundle.path, subject)
    write_manifest(bundle.path, bundle.manifest, {role: bundle.artifact(role) for role in bundle.manifest.artifacts})
    return load_bundle(bundle.path)


def blocks(bundle: Path, language: str) -> list[str]:
    """The blocks of a language on the kit's page."""
    page = (bundle / "kit/README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
