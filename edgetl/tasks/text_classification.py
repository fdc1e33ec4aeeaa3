"""One class a text: classification with another input."""

from __future__ import annotations

from dataclasses import replace

from edgetl.tasks import classification

TASK = replace(
    classification.TASK,
    name="text-classification",
    about="which one of several classes a text is",
    inputs=("text",),
)
