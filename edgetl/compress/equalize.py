"""Cross-layer equalization: channels rescaled across layers so that 8 bits suit all of them; the function stays.

Nagel, van Baalen, Blankevoort and Welling 2019, "Data-Free Quantization through Weight Equalization and Bias
Correction", section 4.1, for groups of layers: what an addition joins has to be scaled alike, so all producers of a
residual stream are divided by one vector of factors and all its readers multiplied by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.compress import graph
from edgetl.compress.layers.arithmetic import fed, session_of
from edgetl.compress.layers.ranges import channel_extremes
from edgetl.errors import CompressionError

Floats = npt.NDArray[np.float64]
#: Largest difference that rescaling may make, as a share of the logits' range.
PARITY = 1e-3
#: Images that the outcome is compared on.
COMPARED = 8
#: Sweeps over all groups, and the logarithm of a factor below which they have settled.
_SWEEPS, _SETTLED = 20, 1e-3
