"""Labelled sentences to train on."""

from __future__ import annotations

import itertools
from pathlib import Path


def write_reviews(file: Path) -> Path:
    """A table of 72 sentences about food and about the weather, of three lengths; returns its path."""
    food = ["soup", "bread", "cake", "pasta", "salad", "rice"], ["tasted", "smelled", "was"], ["good", "salty"]
    weather = ["rain", "wind", "snow", "fog", "storm", "frost"], ["came", "stayed", "was"], ["late", "heavy"]
    rows = []
    for label, parts in (("food", food), ("weather", weather)):
        for i, (noun, verb, how) in enumerate(itertools.product(*parts)):
            rows.append(f'"The {noun} {verb} {how}{" yesterday, and again in the evening" * (i % 3)}.",{label}')
    file.write_text("\n".join(["text,label", *rows]))
    return file
