"""Licences, by the names that SPDX gives them: what is stated of weights, data and tools, and nothing that is guessed.

Beside data may lie ``NAME.license``, as REUSE (https://reuse.software) has it, with a line
``SPDX-License-Identifier: CC-BY-4.0``; beside ``photos/`` that is ``photos.license``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgetl.base.schema import Json

#: Of SPDX's list, those that weights, data and tools for machine learning come under; others are kept as words.
_IDENTIFIERS = (
    *("0BSD", "AFL-3.0", "AGPL-3.0-only", "AGPL-3.0-or-later", "Apache-2.0", "Artistic-2.0"),
    *("BSD-2-Clause", "BSD-3-Clause", "BSD-3-Clause-Clear", "BSD-4-Clause", "BSL-1.0", "C-UDA-1.0"),
    *("CC-BY-2.0", "CC-BY-2.5", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-NC-2.0", "CC-BY-NC-3.0", "CC-BY-NC-4.0"),
    *("CC-BY-NC-ND-3.0", "CC-BY-NC-ND-4.0", "CC-BY-NC-SA-2.0", "CC-BY-NC-SA-3.0", "CC-BY-NC-SA-4.0"),
    *("CC-BY-ND-4.0", "CC-BY-SA-3.0", "CC-BY-SA-4.0", "CC-PDDC", "CC0-1.0"),
    *("CDLA-Permissive-1.0", "CDLA-Permissive-2.0", "CDLA-Sharing-1.0", "ECL-2.0", "EPL-2.0", "EUPL-1.2"),
    *("GFDL-1.3-or-later", "GPL-2.0-only", "GPL-2.0-or-later", "GPL-3.0-only", "GPL-3.0-or-later", "ISC"),
    *("LGPL-2.1-only", "LGPL-2.1-or-later", "LGPL-3.0-only", "LGPL-3.0-or-later", "MIT", "MIT-0", "MIT-CMU"),
    *("MPL-2.0", "MS-PL", "NCSA", "ODbL-1.0", "ODC-By-1.0", "OGL-UK-3.0", "OSL-3.0", "PDDL-1.0", "PSF-2.0"),
    *("Python-2.0", "Unlicense", "Zlib", "etalab-2.0"),
)
_SPELLED = {name.casefold(): name for name in _IDENTIFIERS}
_REFERENCE = re.compile(r"(DocumentRef-[\w.-]+:)?LicenseRef-[\w.-]+", re.ASCII)
_TAG = re.compile(r"SPDX-License-Identifier:[ \t]*(\S[^\r\n]*)")
#: Bytes of a file that states a licence, and characters of what it states.
_MOST, _LONGEST = 1 << 16, 500
NOT_STATED = "not stated"
#: What a lineage says of a run that starts from nothing.
_NONE = ("", "none", "random initialisation")
#: What a runtime, or what reads samples, is licensed under, by module, as its package says.
PACKAGES: Mapping[str, str] = {
    "ai_edge_litert": "Apache-2.0",
    "edgetl": "Apache-2.0",
    "numpy": "BSD-3-Clause AND 0BSD AND MIT AND Zlib AND CC0-1.0",
    "onnxruntime": "MIT",
    "openvino": "Apache-2.0",
    "PIL": "MIT-CMU",
    "tensorrt": "NVIDIA's own, proprietary",
    "tokenizers": "Apache-2.0",
}


@dataclass(frozen=True)
class Source:
    """Something that a model came from, or needs.

    Attributes:
        role: what it is to the model: its pretrained ``weights``, ``data`` it was made or certified with, or ``tool``.
        name: of it.
        licence: what is stated of it, in the form of :func:`spdx` where it is one of SPDX's; "" where nothing is.
        sha256: of weights; "" where it is not known.
    """

    role: Literal["weights", "data", "tool"]
    name: str
    licence: str = ""
    sha256: str = ""

    @property
    def stated(self) -> str:
        """The licence in words."""
        return self.licence or NOT_STATED


def spdx(stated: str) -> str:
    """An SPDX expression in SPDX's own spelling; "" for what is none, or names what edgetl does not know.

    Args:
        stated: such as ``apache-2.0`` or ``MIT AND CC-BY-4.0``; parentheses and exceptions are not read.
    """
    words = stated.split()
    names, joints = words[::2], words[1::2]
    found = [name if _REFERENCE.fullmatch(name) else _SPELLED.get(name.casefold(), "") for name in names]
    whole = len(names) == len(joints) + 1 and all(found) and all(word in ("AND", "OR") for word in joints)
    return " ".join(word for pair in zip(found, [*joints, ""], strict=True) for word in pair if word) if whole else ""


def named(stated: str) -> str:
    """The same, or what was stated as it is where it is no expression."""
    text = " ".join(stated.split())[:_LONGEST]
    return spdx(text) or text


def licences_beside(sources: Iterable[str | Path]) -> dict[str, str]:
    """Name of each source of data beside which a licence is stated → that licence.

    Args:
        sources: folders and files, or names of data that has none.
    """
    found = {}
    for source in sources:
        path = Path(source).absolute()
        file = path.with_name(f"{path.name}.license")
        try:
            if path.exists() and file.is_file() and file.stat().st_size <= _MOST:
                stated = _TAG.findall(file.read_text(encoding="utf-8", errors="replace"))
                if stated:
                    found[path.name] = named(" AND ".join(dict.fromkeys(text.strip() for text in stated)))
        except OSError:
            continue
    return found


def sources_of(lineage: Mapping[str, Json], data: str) -> tuple[Source, ...]:
    """What a run's lineage says that the model came from: its weights, and its data.

    Args:
        lineage: as runs and bundles have it.
        data: name of the data; "" where nobody knows.
    """
    listed = lineage.get("data_licences")
    stated = {name: _text(licence) for name, licence in (listed if isinstance(listed, Mapping) else {}).items()}
    known = {**dict.fromkeys([data] if data else [], ""), **stated}
    return (*_weights(lineage), *(Source("data", name, named(text)) for name, text in known.items()))


def _weights(lineage: Mapping[str, Json]) -> Iterator[Source]:
    """The weights that the first of a chain of runs started from: those that the others start from are its own."""
    link: Json = lineage
    while isinstance(link.get("from"), Mapping):
        link = link["from"]
    name = _text(link.get("weights"))
    if name not in _NONE:
        yield Source("weights", name, named(_text(link.get("licence"))), _text(link.get("weights_sha256")))


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""
