"""Labelled samples on disk: a reader for each format, splits that share nothing, and the record of both."""

from edgetl.core.data.digits import write_digits
from edgetl.core.data.reading import Content, read_dataset
from edgetl.core.data.samples import SPLITS, Dataset, Sample, Skipped, digest_of
from edgetl.core.data.splits import SHARES, assign_splits

__all__ = [
    "SHARES",
    "SPLITS",
    "Content",
    "Dataset",
    "Sample",
    "Skipped",
    "assign_splits",
    "digest_of",
    "read_dataset",
    "write_digits",
]
