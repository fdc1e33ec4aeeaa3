"""Which fault is it? From what a bundle's files say, from its graphs, and from its answers."""

from edgetl.diagnosis.diagnose import diagnose
from edgetl.diagnosis.observations import Observations

__all__ = ["Observations", "diagnose"]
