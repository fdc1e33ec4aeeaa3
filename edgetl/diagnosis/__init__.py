"""Which fault is it? From what a bundle's files say, from its graphs, and from its answers."""

from edgetl.diagnosis.diagnose import OF_FILES_ALONE, UNREAD, diagnose, of_files
from edgetl.diagnosis.observations import Observations

__all__ = ["OF_FILES_ALONE", "UNREAD", "Observations", "diagnose", "of_files"]
