"""A copy of the package that a test may add files and lines to, as somebody does who extends edgetl."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
#: What of the checkout edgetl runs from.
FOLDERS = ("edgetl", "targets", "calibration", "runner")


@dataclass(frozen=True)
class Copy:
    """A copy of edgetl that may be changed."""

    root: Path

    @classmethod
    def made(cls, root: Path) -> Copy:
        """The checkout as it is, in a new folder."""
        for name in FOLDERS:
            shutil.copytree(CHECKOUT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        return cls(root)

    def add(self, file: str, content: str) -> None:
        """The one file."""
        path = self.root / file
        assert not path.exists()
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)

    def enter(self, file: str, module: str, before: str) -> None:
        """The one line: ``module``'s entry, written as that of ``before`` is, and its import."""
        path = self.root / file
        text = path.read_text()
        imported = re.sub(
            rf"^(from edgetl\S* import .*?)\b{before}\b", rf"\1{module}, {before}", text, count=1, flags=re.M
        )
        (entry,) = re.findall(rf"^ +{before}\.\w+,$", imported, flags=re.M)
        path.write_text(imported.replace(entry, entry.replace(before, module) + "\n" + entry))

    def run(self, script: str, *arguments: str) -> Any:
        """What a script prints last, as JSON, in a process that imports the copy."""
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            cwd=self.root,
            env={"PYTHONPATH": str(self.root), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])
