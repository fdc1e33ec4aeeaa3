"""Images for the small network, without torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SIZE = 32


def pictures(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Smooth random images, uint8 (count, 32, 32, 3)."""
    draw = np.random.default_rng(seed)
    coarse = draw.integers(0, 256, (count, 4, 4, 3)).astype(np.float64)
    smooth = coarse.repeat(SIZE // 4, axis=1).repeat(SIZE // 4, axis=2)
    return np.clip(smooth + draw.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8)
