"""``exported.pt2``: a program of ``torch.export``, whose architecture needs no code of its owner.

torch reads such a file with pickle where it says so, and its sizes with sympy, which evaluates them as Python. Neither
is let near a file that anybody may have made: pickles give tensors alone, and sizes are arithmetic or the file is
refused.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgetl.base.errors import EdgetlError
from edgetl.base.extras import require
from edgetl.base.storage import sha256_file
from edgetl.compress.quiet import quiet
from edgetl.workflow.adoption.given import Given, Reader, suffixed

_AGAIN = "save it with torch.export.save"
#: Bytes that the description of a program, without its weights, may take.
MOST_DESCRIPTION = 256 << 20
#: What a size may be made of: symbols as torch names them, whole numbers, and arithmetic.
_SIZE = re.compile(
    r"(?:Symbol\('[a-zA-Z]\w{0,40}'(?:, (?:positive|integer|nonnegative|real)=(?:True|False))*\)"
    r"|\b(?:Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|CeilToInt|FloorToInt|IntTrueDiv|ToFloat|Integer|int_oo)\b"
    r"|\b[su]\d{1,6}\b|\b\d{1,20}\b|[-+*/(), ])*"
)
_WEIGHTS_ALONE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def _read(model: str | Path) -> Given:
    path = Path(model)
    if not path.is_file():
        raise EdgetlError(f"there is no model {path}", "give what torch.export.save wrote")
    torch = require("torch", "reading an exported program")
    _refuse_code(path)
    try:
        with quiet(), _tensors_alone():
            program = torch.export.load(str(path))
            module = program.module(check_guards=False)
    except Exception as error:  # torch raises what its many versions of the format lead it into
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise EdgetlError(f"torch.export cannot load {path} ({lines[0][:200]})", _AGAIN) from error
    # A program knows no training, and says of itself that it was made in it: its batch norms are fixed all the same.
    for part in module.modules():
        part.training = False
    return Given("pt2", path.name, sha256_file(path), module=module)


@contextmanager
def _tensors_alone() -> Iterator[None]:
    """Let pickles give nothing but tensors, also where torch asks for more."""
    before = os.environ.get(_WEIGHTS_ALONE)
    os.environ[_WEIGHTS_ALONE] = "1"
    try:
        yield
    finally:
        os.environ.pop(_WEIGHTS_ALONE)
        if before is not None:
            os.environ[_WEIGHTS_ALONE] = before


def _refuse_code(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if "/models/" in m.filename and m.filename.endswith(".json")]
            if not members or sum(member.file_size for member in members) > MOST_DESCRIPTION:
                raise EdgetlError(f"{path} is no program of torch.export of this format", _AGAIN)
            found = [json.loads(archive.read(member)) for member in members]
    except (OSError, ValueError, RecursionError, zipfile.BadZipFile) as error:
        raise EdgetlError(f"{path} is no exported program ({error})", _AGAIN) from error
    for size in _sizes(found):
        if not isinstance(size, str) or len(size) > 1000 or "__" in size or not _SIZE.fullmatch(size):
            raise EdgetlError(
                f"{path} has a size that is no arithmetic ({size!r:.60})", "use no file of unknown origin"
            )


def _sizes(record: Any) -> Iterator[Any]:
    """Everything in a record that torch would give to sympy."""
    waiting = [record]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            yield from (value for key, value in item.items() if key == "expr_str")
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item


READER = Reader("pt2", "a program of torch.export (model.pt2)", suffixed(".pt2"), _read)
