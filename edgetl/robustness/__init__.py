"""Does compression hurt more off distribution? The paired test again, on corrupted copies of the same images."""

from edgetl.robustness.corruptions import CORRUPTIONS, SEVERITIES, corrupted, write_corrupted
from edgetl.robustness.table import Row, excess_loss, measure

__all__ = ["CORRUPTIONS", "SEVERITIES", "Row", "corrupted", "excess_loss", "measure", "write_corrupted"]
