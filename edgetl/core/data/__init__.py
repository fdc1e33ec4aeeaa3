"""Labelled samples on disk: a reader for each format, splits that share nothing, and the record of both."""

from edgetl.core.data.labels import LABEL_KINDS, Label, LabelKind
from edgetl.core.data.readers import READERS, Listing, Reader, find_reader
from edgetl.core.data.readers.digits import write_digits
from edgetl.core.data.reading import Content, read_dataset, refuse_inside, unlisted
from edgetl.core.data.samples import SPLITS, Dataset, Sample, Skipped, digest_of
from edgetl.core.data.splits import SHARES, assign_splits

__all__ = [
    "LABEL_KINDS",
    "READERS",
    "SHARES",
    "SPLITS",
    "Content",
    "Dataset",
    "Label",
    "LabelKind",
    "Listing",
    "Reader",
    "Sample",
    "Skipped",
    "assign_splits",
    "digest_of",
    "find_reader",
    "read_dataset",
    "refuse_inside",
    "unlisted",
    "write_digits",
]
