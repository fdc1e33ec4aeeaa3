"""What a bundle was certified on, without the samples: the characteristics of each, sorted one by one.

Sorted, because no sample can be put together again from numbers that lie in another order for each characteristic.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from edgetl.base.errors import BundleError

AGAIN = "delete it, then make it again with edgetl verify --data"
#: Samples and characteristics that a sketch may have.
MOST_SAMPLES, MOST_CHARACTERISTICS = 1000, 256


@dataclass(frozen=True)
class Sketch:
    """The characteristics of the certify samples (see :mod:`edgetl.runtime.characteristics`).

    Attributes:
        n: samples.
        values: of each characteristic by name, ``n`` of them in rising order.
        schema: of this record.

    Raises:
        BundleError: numbers that are not finite, out of order, or too few or too many.
    """

    n: int
    values: Mapping[str, tuple[float, ...]]
    schema: Literal[1] = 1

    def __post_init__(self) -> None:
        fits = 1 <= self.n <= MOST_SAMPLES and 1 <= len(self.values) <= MOST_CHARACTERISTICS
        for found in self.values.values():
            rising = all(earlier <= later for earlier, later in itertools.pairwise(found))
            fits = fits and len(found) == self.n and rising and math.isfinite(found[0]) and math.isfinite(found[-1])
        if not fits:
            raise BundleError("sketch.json is no sketch of certify samples", AGAIN)
