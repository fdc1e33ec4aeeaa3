"""A core installation, made of this whole one: whatever an extra brings is not there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
#: Refuses, as if not installed, every package that only an extra brings, and some that those bring.
_CORE = """
import importlib.metadata, sys
from edgetl.base.extras import PROVIDERS

missing = {name for name, (_, extra) in PROVIDERS.items() if extra} | {"scipy", "huggingface_hub"}

class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refusing())
assert not missing & set(sys.modules)
"""


def in_core(script: str, *arguments: object, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a script whose imports are those of a core installation, with the user's folders below ``home``."""
    return subprocess.run(
        [sys.executable, "-c", _CORE + script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "EDGETL_HOME": str(home / "edgetl"), "XDG_DATA_HOME": str(home / "data")},
    )
