"""The programs of a kit: the runner's sources, and examples in C and C++ for this bundle's input and task."""

from __future__ import annotations

import math
import string
from collections.abc import Iterator
from pathlib import Path

from edgetl.base.resources import resource
from edgetl.inputs import Tensors
from edgetl.reporting.kit.quoting import c_string
from edgetl.reporting.kit.subject import Subject

_HERE = Path(__file__).parent / "sources"
#: What of ``runner/`` it takes to build the runner, in the order of the alphabet.
RUNNER = ("CMakeLists.txt", "LICENSE", "README.md", "cmake", "fetch_packages.sh", "include", "src", "tools")
#: Kind of labels → statements that print an answer, in C and in C++.
_SHOW = {
    "class": (
        'printf("%s %.3f\\n", items[0].label, items[0].number);',
        "std::cout << answers.at(0).label << ' ' << answers.at(0).number << '\\n';",
    ),
    "number": ('printf("%g\\n", items[0].number);', "std::cout << answers.at(0).number << '\\n';"),
    "classes": (
        """for (size_t i = 0; i < answers.count; i++) /* without the flag: the most probable one, and yet not there */
  if (items[i].flags & ETL_PRESENT) printf("%s %.3f\\n", items[i].label, items[i].number);""",
        """for (const etl_answer &answer : answers)  // without the flag: the most probable one, and yet not there
  if (answer.flags & ETL_PRESENT) std::cout << answer.label << ' ' << answer.number << '\\n';""",
    ),
}
#: The same of several tasks.
_SHOW_SEVERAL = (
    """for (size_t i = 0; i < answers.count; i++) {
  if (!(items[i].flags & ETL_PRESENT)) continue; /* the most probable label, and yet not there */
  printf("%s: ", etl_task(model, items[i].task));
  if (items[i].label != NULL) printf("%s ", items[i].label);
  printf("%g\\n", items[i].number);
}""",
    """for (const etl_answer &answer : answers) {
  if (!(answer.flags & ETL_PRESENT)) continue;  // the most probable label, and yet not there
  std::cout << etl_task(model.get(), answer.task) << ": ";
  if (answer.label != nullptr) std::cout << answer.label << ' ';
  std::cout << answer.number << '\\n';
}""",
)


class _Program(string.Template):
    delimiter = "@"


def programs(subject: Subject) -> dict[str, str]:
    """The examples by name, where the C runner serves the bundle."""
    arrays = isinstance(subject.definition, Tensors)
    kind = "arrays" if arrays else "picture"
    made = {
        "CMakeLists.txt": source("CMakeLists.txt"),
        "example.c": _filled(f"{kind}.c.in", subject, 0),
        "example.cpp": _filled(f"{kind}.cpp.in", subject, 1),
    }
    return made if arrays else {**made, "gstreamer.c": _filled("gstreamer.c.in", subject, 0)}


def source(name: str) -> str:
    """One of the files that are the same in every kit, or are filled in for each."""
    return (_HERE / name).read_text(encoding="utf-8")


def runner_sources() -> Iterator[tuple[str, bytes]]:
    """The runner's files, by their names below ``runner/``.

    Raises:
        EdgetlError: the installation lacks them.
    """
    root = resource("runner")
    for name in RUNNER:
        whole = root / name
        for file in sorted(whole.rglob("*")) if whole.is_dir() else [whole]:
            if file.is_file():
                yield file.relative_to(root).as_posix(), file.read_bytes()


def _filled(name: str, subject: Subject, language: int) -> str:
    show = _SHOW.get(subject.does.labels, _SHOW_SEVERAL)[language]
    values = {"most": subject.answers, "show": "\n".join(f"    {line}" for line in show.splitlines())}
    if isinstance(subject.definition, Tensors):
        sizes = {c_string(spec.name): math.prod(spec.shape) for spec in subject.definition.arrays}
        values |= {
            "count": len(sizes),
            "sum": sum(sizes.values()),
            "names": ", ".join(sizes),
            "sizes": ", ".join(map(str, sizes.values())),
            "pairs": ", ".join(f"{{{key}, {size}}}" for key, size in sizes.items()),
        }
    return _Program(source(name)).substitute(values)
