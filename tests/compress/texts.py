"""Token numbers for the small transformer, without torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgetl.core.tensors import Arrays, TensorSpec, joined

WORDS, LONGEST = 100, 24


@dataclass(frozen=True)
class Inputs:
    """Only what export asks of an input."""

    tensors: tuple[TensorSpec, ...]


TOKENS = Inputs(tuple(TensorSpec(name, "int64", (None, None)) for name in ("input_ids", "attention_mask")))


def sentences(count: int, seed: int = 0) -> list[Arrays]:
    """The inputs of one sentence each, of 4 to 20 tokens, without padding."""
    draw = np.random.default_rng(seed)
    texts = [draw.integers(0, WORDS, (1, int(draw.integers(4, 21)))) for _ in range(count)]
    return [{"input_ids": ids, "attention_mask": np.ones_like(ids)} for ids in texts]


def padded(texts: list[Arrays]) -> Arrays:
    """Sentences as one batch."""
    longest = max(text["input_ids"].shape[1] for text in texts)
    return joined(
        [{name: np.pad(ids, ((0, 0), (0, longest - ids.shape[1]))) for name, ids in text.items()} for text in texts]
    )
