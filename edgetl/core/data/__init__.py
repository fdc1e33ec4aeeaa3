"""Labelled samples on disk: a reader for each format, splits that share nothing, and the record of both."""

from edgetl.core.data.groups import GroupRule, read_rule
from edgetl.core.data.labels import LABEL_KINDS, Label, LabelKind, renumbered
from edgetl.core.data.places import located
from edgetl.core.data.readers import READERS, Listing, Reader, find_reader
from edgetl.core.data.readers.digits import NAME as DIGITS
from edgetl.core.data.readers.digits import is_embedded, write_digits
from edgetl.core.data.reading import NEEDED, Content, read_dataset, read_listing, refuse_inside, unlisted
from edgetl.core.data.samples import SPLITS, Dataset, Sample, Skipped, digest_of, group_numbers
from edgetl.core.data.several import Part, label_kind, parts_of
from edgetl.core.data.splits import SHARES, assign_splits, assign_unlearned

__all__ = [
    "DIGITS",
    "LABEL_KINDS",
    "NEEDED",
    "READERS",
    "SHARES",
    "SPLITS",
    "Content",
    "Dataset",
    "GroupRule",
    "Label",
    "LabelKind",
    "Listing",
    "Part",
    "Reader",
    "Sample",
    "Skipped",
    "assign_splits",
    "assign_unlearned",
    "digest_of",
    "find_reader",
    "group_numbers",
    "is_embedded",
    "label_kind",
    "located",
    "parts_of",
    "read_dataset",
    "read_listing",
    "read_rule",
    "refuse_inside",
    "renumbered",
    "unlisted",
    "write_digits",
]
