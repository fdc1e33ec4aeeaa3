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
    ("pipeline",),
    ("workflow",),
    ("diagnosis",),
    ("transfer", "compress", "certify", "robustness", "latency", "reporting"),
    ("devices", "serving"),
    ("backends",),
    ("runtime",),
    ("tasks",),
    ("inputs",),
    ("core",),
    ("base",),
)
#: The same within one part: what joins the stages is a strict order, too.
WITHIN = {
    "workflow": (
        (
            "fleet",
            "adoption",
            "advise",
            "monitor",
            "retention",
            "transfer_outcome",
            "enroll_class",
            "certify_enrolled",
        ),
        ("rank_backbones",),
        ("time_bundle", "audit", "update_gate", "verify_bundle"),
        ("certify_unlabelled",),
        ("certify_bundle",),
        ("corruption_test", "explain_loss"),
        ("answers",),
        ("build_bundle",),
        ("repair_search",),
        ("open_head",),
        ("requests", "refit_head", "train_quantized"),
        ("given_artifact",),
        ("candidates",),
        ("network_reference",),
        ("reference",),
        (
            "stage_cache",
            "doctor",
            "exported",
            "sources",
            "golden_vectors",
            "sketch_bundle",
            "portable",
            "readings",
            "sign_bundle",
            "attempt_outcome",
            "label_file",
        ),
    ),
    "core": (
        ("bundle_archive", "seen"),
        ("run", "bundle"),
        ("certificate", "bundle_files"),
        ("manifest", "run_record", "data", "targets", "val_outputs", "head_file"),
        (
            "target",
            "compression",
            "bench",
            "findings",
            "tensors",
            "certificate_parts",
            "onnx_file",
            "npz",
            "class_rule",
            "signature",
            "artifact",
            "adaptation",
            "agreement",
            "adoption",
            "transfer_outcome",
            "bill",
            "licences",
            "sketch",
        ),
    ),
    "base": (
        ("storage", "lock", "extras", "resources", "schema", "memory", "stored_zip"),
        ("errors", "progress"),
        ("names", "wording", "ed25519"),
    ),
}
#: What may stand at the top of the package: the façade and the journey.
TOP = {"__init__.py", "__main__.py", "pipeline.py", "py.typed"}
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
    "tokenizers",
    "starlette",
    "uvicorn",
    "prometheus_client",
)
ALLOWED_ON_DEVICE = {
    *("numpy", "PIL", "tokenizers"),
    *("onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "ai_edge_litert", "cuda"),
}


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


def part(module: str, depth: int = 1) -> str:
    pieces = module.split(".")
    return pieces[depth] if len(pieces) > depth else ""


def layer(name: str, layers: tuple[tuple[str, ...], ...] = LAYERS) -> int:
    for index, names in enumerate(layers):
        if name in names:
            return index
    raise AssertionError(f"edgetl/{name} is in no layer: add it to the design and to this test")


def test_only_the_facade_stands_at_the_top() -> None:
    assert {file.name for file in PACKAGE.iterdir() if file.is_file()} == TOP


def test_every_part_has_a_layer() -> None:
    for module in modules():
        if part(module) and module != "edgetl.__main__":
            layer(part(module))


def test_imports_point_down() -> None:
    wrong = []
    for module, file in modules().items():
        mine = part(module)
        if not mine or module == "edgetl.__main__":
            continue
        for imported in imports(file):
            theirs = part(imported) if imported.startswith("edgetl.") else ""
            if theirs in ("", mine, "__version__"):
                continue
            if layer(theirs) <= layer(mine):
                wrong.append(f"{module} imports {imported}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("folder", WITHIN)
def test_imports_point_down_within(folder: str) -> None:
    wrong, order = [], WITHIN[folder]
    for module, file in modules().items():
        mine = part(module, 2)
        if part(module) != folder or not mine:
            continue
        for imported in imports(file):
            theirs = part(imported, 2) if imported.startswith(f"edgetl.{folder}.") else ""
            if theirs and theirs != mine and layer(theirs, order) <= layer(mine, order):
                wrong.append(f"{module} imports {imported}")
    assert not wrong, "\n".join(wrong)


def test_first_party_imports_stand_at_the_top_of_a_file() -> None:
    """All but those that would make a command's start heavy."""
    hidden = total = 0
    for file in modules().values():
        tree = ast.parse(file.read_text())
        inside = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
        found = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and (n.module or "").startswith("edgetl")]
        total += len(found)
        hidden += sum(id(node) in inside for node in found)
    assert hidden <= 0.06 * total, f"{hidden} of {total}"


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
    verbs = {"finetune", "adopt", "export", "verify", "bench", "deploy", "rollback", "serve", "report", "demo"}
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
                if length > 40:
                    long.append(f"{module}.{node.name}: {length} lines")
    assert not long, "\n".join(long)


def loaded_after(code: str) -> set[str]:
    script = f"import sys, json\n{code}\nprint(json.dumps(sorted(sys.modules)), file=sys.__stderr__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    return {name.split(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}


VERBS = [
    "",
    "finetune",
    "adopt",
    "export",
    "verify",
    "bench",
    "enroll",
    "forget",
    "deploy",
    "rollback",
    "serve",
    "monitor",
    "pack",
    "unpack",
    "report",
    "demo",
    "run",
    "devices",
    "doctor",
]


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


def test_openvino_has_one_core() -> None:
    """See :func:`edgetl.runtime.ov.core`."""
    makers = {
        module
        for module, file in modules().items()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "Core"
    }
    assert makers == {"edgetl.runtime.ov"}
