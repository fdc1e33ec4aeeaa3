"""The layers of the design, read from the source: who may import whom, no cycles, nothing heavy at the start."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "edgetl"

#: Top to bottom; a part imports only from the lines below its own, or from itself.
LAYERS = (
    ("cli",),
    ("pipeline", "fleet", "stages", "assemble", "trained", "workshop", "mend", "judge", "observe", "doctor", "timing"),
    ("diagnosis",),
    ("transfer", "compress", "certify", "latency", "reporting", "robustness"),
    ("devices",),
    ("backends",),
    ("runtime",),
    ("bundle", "run"),
    ("targets", "data", "preprocess", "splits", "findings"),
    ("storage", "progress"),
    ("errors", "resources", "extras"),
)
#: Parts of one line that may know each other: the pipeline is several files, and so are the lowest layers.
FRIENDS = (LAYERS[1], ("bundle", "run"), ("data", "preprocess", "splits"), ("errors", "resources", "extras"))
HEAVY = (
    "torch",
    "numpy",
    "PIL",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
    "tensorrt",
    "tensorrt_rtx",
    "timm",
    "rich",
    "ai_edge_litert",
)
ALLOWED_ON_DEVICE = {"numpy", "PIL", "onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "ai_edge_litert", "cuda"}


def modules() -> dict[str, Path]:
    names = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        if "_data" in file.parts:
            continue
        parts = file.relative_to(ROOT).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return names


def imports(file: Path, *, typing_too: bool = False) -> set[str]:
    """Modules of edgetl that a file imports anywhere in it, those for type checking only left out."""
    tree = ast.parse(file.read_text())
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not typing_too:
            skipped |= {id(inner) for inner in ast.walk(node)}
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            pytest.fail(f"{file} uses a relative import; the layers are read from absolute ones")
    return found


def part(module: str) -> str:
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 else ""


def layer(name: str) -> int:
    for index, names in enumerate(LAYERS):
        if name in names:
            return index
    raise AssertionError(f"edgetl/{name} is in no layer: add it to the design and to this test")


def test_every_part_has_a_layer() -> None:
    for module in modules():
        if part(module):
            layer(part(module))


def test_imports_point_down() -> None:
    wrong = []
    for module, file in modules().items():
        mine = part(module)
        if not mine:
            continue
        for imported in imports(file):
            theirs = part(imported) if imported.startswith("edgetl.") else ""
            if not theirs or theirs in (mine, "__version__"):
                continue
            friends = any(mine in group and theirs in group for group in FRIENDS)
            if layer(theirs) < layer(mine) or (layer(theirs) == layer(mine) and not friends):
                wrong.append(f"{module} imports {imported}")
    assert not wrong, "\n".join(wrong)


def test_no_import_cycles() -> None:
    known = modules()
    graph = {}
    for module, file in known.items():
        direct = set()
        for name in imports(file):
            target = name if name in known else name.rsplit(".", 1)[0]
            # Every submodule runs its package's __init__, which may re-export it: that is no cycle of design.
            if target in known and target not in (module, "edgetl") and not module.startswith(target + "."):
                direct.add(target)
        graph[module] = direct
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"import cycle: {' → '.join(error.args[1])}")


def test_no_package_bears_a_verbs_name() -> None:
    verbs = {"finetune", "export", "verify", "bench", "deploy", "rollback", "report", "demo"}
    assert not verbs & {part(module) for module in modules()}


def test_files_stay_short() -> None:
    long = {str(f.relative_to(ROOT)): n for f in modules().values() if (n := len(f.read_text().splitlines())) > 330}
    assert not long
    over = [f for f in modules().values() if len(f.read_text().splitlines()) > 300]
    assert len(over) <= 0.05 * len(modules())


def test_functions_stay_short() -> None:
    long = []
    for module, file in modules().items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef):
                documented = ast.get_docstring(node) is not None
                first = node.body[1] if documented and len(node.body) > 1 else node.body[0]
                length = (node.end_lineno or 0) - first.lineno + 1
                if length > 45:
                    long.append(f"{module}.{node.name}: {length} lines")
    assert not long, "\n".join(long)


def loaded_after(code: str) -> set[str]:
    script = f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)), file=sys.__stderr__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return {name.split(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}


VERBS = ["", "finetune", "export", "verify", "bench", "deploy", "rollback", "report", "demo", "devices", "doctor"]


@pytest.mark.parametrize("verb", VERBS)
def test_help_imports_nothing_heavy(verb: str) -> None:
    arguments = [verb, "--help"] if verb else ["--help"]
    loaded = loaded_after(f"from edgetl.cli import run\nassert run({arguments!r}) == 0")
    assert not loaded & set(HEAVY)


def test_importing_edgetl_imports_nothing_heavy() -> None:
    assert not loaded_after("import edgetl; edgetl.__version__") & set(HEAVY)


def test_the_device_side_needs_numpy_and_one_runtime() -> None:
    """Everything reachable from edgetl.runtime imports nothing but the standard library and what a device has."""
    known, todo, seen = modules(), ["edgetl.runtime.__main__"], set()
    while todo:
        module = todo.pop()
        if module in seen:
            continue
        seen.add(module)
        for name in imports(known[module]):
            target = next((n for n in (name, name.rsplit(".", 1)[0]) if n in known), None)
            if target is not None:
                todo.append(target)
            elif name.split(".")[0] not in sys.stdlib_module_names | ALLOWED_ON_DEVICE | {"__future__"}:
                pytest.fail(f"{module} imports {name}, which a device does not have")
    loaded = loaded_after("import edgetl.runtime, edgetl.runtime.measure, edgetl.runtime.__main__")
    assert not loaded & {"torch", "typer", "rich", "onnx", "sklearn", "nncf"}
