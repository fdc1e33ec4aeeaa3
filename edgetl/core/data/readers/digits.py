"""scikit-learn's handwritten digits: the data that needs no file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from edgetl.base.extras import require
from edgetl.base.storage import new_folder
from edgetl.core.data.readers import folder as class_folders
from edgetl.core.data.readers.base import Reader
from edgetl.core.data.samples import CLASS

#: What the data are called, and what they are called where a file or a folder has that name.
NAME, ALWAYS = "digits", "sklearn:digits"


def write_digits(folder: Path) -> Path:
    """Write scikit-learn's 1,797 digits (8x8, grey) as PNG files, a folder for each class, unless it is there."""
    from PIL import Image

    if folder.is_dir():
        return folder
    bunch = require("sklearn.datasets", "reading the embedded digits").load_digits()
    with new_folder(folder) as root:
        for index, (image, label) in enumerate(zip(bunch.images, bunch.target, strict=True)):
            (root / str(label)).mkdir(exist_ok=True)
            grey = np.clip(image * 255 / 16, 0, 255).round().astype(np.uint8)
            Image.fromarray(grey).save(root / str(label) / f"{index:04d}.png", optimize=False)
    return folder


def is_embedded(source: str | Path) -> bool:
    """Whether a source is the embedded digits: a file or folder called so is its owner's."""
    return str(source) == ALWAYS or (str(source) == NAME and not Path(source).exists())


READER = Reader(
    name=NAME,
    about=f"'{NAME}' ('{ALWAYS}' where a folder is called so), scikit-learn's 1,797 handwritten digits",
    takes=is_embedded,
    sniff=lambda source: (".png", CLASS),
    read=lambda source, into: replace(class_folders.read(write_digits(into), into), mirror_safe=False),
    writes=True,
)
