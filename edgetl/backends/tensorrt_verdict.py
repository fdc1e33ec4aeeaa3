"""What a device's TensorRT will say to a model, told before the trip: by tables of what each version takes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgetl.backends.base import load_onnx
from edgetl.backends.tensorrt_rules import CHECKS, Facts, Seen, facts, nodes
from edgetl.backends.tensorrt_tables import Rule, Table, jetpacks, parse_version, tables, tables_around
from edgetl.base.errors import BackendError
from edgetl.base.extras import require
from edgetl.core.bundle import load_bundle
from edgetl.core.targets import Target, find_target

#: Operators whose own type is not that of their first input; 'out': the type of what they make.
_TYPED_BY: dict[str, tuple[int | str, ...]] = {
    "Where": (1,),
    "OneHot": (2,),
    "Cast": (0, "out"),
    "CastLike": (0, "out"),
    "Constant": ("out",),
    "ConstantOfShape": ("out",),
    "RandomNormal": ("out",),
    "RandomUniform": ("out",),
    "EyeLike": ("out",),
    "BlackmanWindow": ("out",),
    "HammingWindow": ("out",),
    "HannWindow": ("out",),
    "If": (),
    "Loop": (),
    "Scan": (),
}
_STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class Objection:
    """Something that a TensorRT version refuses, reads wrongly or may refuse.

    Attributes:
        node: name of the first node it is about, or of a tensor; '' for the whole model.
        operator: that node's.
        what: what was seen there: a type, an opset, an attribute.
        why: what the version's parser takes instead.
        remedy: what to do about it, or ''.
        certain: False where the tables cannot tell: 'unknown', never 'fine'.
        tensorrt: version of the table that says so, or '' where there is none.
        also: further nodes with the same objection.
    """

    node: str
    operator: str
    what: str
    why: str
    remedy: str = ""
    certain: bool = True
    tensorrt: str = ""
    also: int = 0

    def __str__(self) -> str:
        where = f"{self.operator} '{self.node}'" if self.operator else self.node or "the model"
        more = f" and {self.also} more" if self.also else ""
        return f"{where}{more}: {self.what}: {self.why}" if self.what else f"{where}{more}: {self.why}"


@dataclass(frozen=True)
class Verdict:
    """What the tables say of a model and one TensorRT version.

    Attributes:
        tensorrt: the version that was asked about.
        system: the release that brings it, or ''.
        table: the version whose table was used, or ''.
        objections: what is refused first, then what is unknown.
    """

    tensorrt: str
    system: str
    table: str
    objections: tuple[Objection, ...]

    @property
    def verdict(self) -> str:
        """'refused', 'unknown' or 'accepted'."""
        if any(objection.certain for objection in self.objections):
            return "refused"
        return "unknown" if self.objections else "accepted"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        shown = [{**asdict(objection), "text": str(objection)} for objection in self.objections]
        return {
            "tensorrt": self.tensorrt,
            "system": self.system,
            "table": self.table,
            "verdict": self.verdict,
            "objections": shown,
        }


def compatibility(model: Path, version: str) -> tuple[Objection, ...]:
    """What TensorRT of that version has against an ONNX file, as far as its documents tell.

    A version between two that were read is judged by the older one; what the newer one refuses too is certain.

    Args:
        model: the ONNX file.
        version: such as '10.3' or '10.3.0'.

    Raises:
        BackendError: the file is no valid ONNX model, or ``version`` is none.
    """
    return objections_to(load_onnx(model), version)


def verdicts(model: Path, target: Target, version: str = "") -> tuple[Verdict, ...]:
    """A verdict for each TensorRT that the target's system releases bring, or for ``version`` alone.

    Raises:
        BackendError: see :func:`compatibility`.
    """
    asked = (
        [(version, _systems(version))]
        if version
        else [(runtime.version, runtime.system) for runtime in target.runtimes]
    )
    loaded = load_onnx(model)
    return tuple(Verdict(at, system, _table_name(at), objections_to(loaded, at)) for at, system in asked)


def judge(path: Path, target_name: str, version: str = "") -> dict[str, Any]:
    """The verdicts on an ONNX file or a bundle as plain JSON values, and the whole one: refused only by all of them.

    Raises:
        EdgetlError: no such file, target or version, or a target that runs no TensorRT.
    """
    target = find_target(target_name)
    if target.backend != "tensorrt":
        raise BackendError(f"target {target.name} runs {target.backend}, not TensorRT", "name a Jetson or rtx")
    if not path.exists():
        raise BackendError(f"there is no {path}", "name an ONNX file or a bundle")
    model = load_bundle(path).artifact().path if path.is_dir() else path
    found = verdicts(model, target, version)
    if not found:
        raise BackendError(f"no TensorRT version is known for target {target.name}", "give one with --tensorrt")
    each = {verdict.verdict for verdict in found}
    whole = next(word for word in ("accepted", "unknown", "refused") if word in each)
    return {
        "model": str(model),
        "target": target.name,
        "verdict": whole,
        "versions": [verdict.to_json() for verdict in found],
    }


def _systems(version: str) -> str:
    same = [release.system for release in jetpacks() if parse_version(release.tensorrt) == parse_version(version)]
    return ", ".join(same)


def _table_name(version: str) -> str:
    older, _ = tables_around(parse_version(version))
    return older.name if older else ""


def objections_to(model: Any, version: str) -> tuple[Objection, ...]:
    """See :func:`compatibility`, for a model that is loaded."""
    older, newer = tables_around(parse_version(version))
    if older is None:
        known = ", ".join(table.name for table in tables().values())
        return (Objection("", "", "", f"no table was read for TensorRT {version}, only for {known}", certain=False),)
    found = list(_objections(model, older))
    if newer is not older:
        lasting = {_key(objection) for objection in _objections(model, newer) if objection.certain} if newer else set()
        found = [replace(one, certain=one.certain and _key(one) in lasting) for one in found]
    merged = _merged(found)
    return tuple(sorted(merged, key=lambda objection: not objection.certain))


def _key(objection: Objection) -> tuple[str, str, str]:
    return objection.node, objection.operator, objection.what


def _merged(found: Iterable[Objection]) -> list[Objection]:
    groups: dict[tuple[Any, ...], list[Objection]] = {}
    for one in found:
        what = one.what if one.certain else ""
        groups.setdefault((one.operator, what, one.why, one.certain), []).append(one)
    return [replace(group[0], also=len(group) - 1) for group in groups.values()]


def _objections(model: Any, table: Table) -> Iterator[Objection]:
    onnx = require("onnx", "judging a model for TensorRT")
    opset = next((entry.version for entry in model.opset_import if entry.domain in _STANDARD), 0)
    if opset < table.opset_min:
        seen = Seen(f"opset {opset}", certain=False)
        yield _objection(table, None, seen, f"documented from opset {table.opset_min} on", "convert the model's opset")
    inliner = require("onnx.inliner", "judging a model for TensorRT")
    inlined = inliner.inline_local_functions(model) if model.functions else model
    known = facts(onnx.shape_inference.infer_shapes(inlined))
    yield from _network_types(inlined, table, known)
    if model.functions:
        for rule in table.rules:
            if rule.check == "functions":
                for node in nodes(model.graph):
                    yield from _ruled(node, rule, table, facts(model))
    for node in nodes(inlined.graph):
        yield from _node_objections(node, opset, table, known)


def _network_types(model: Any, table: Table, known: Facts) -> Iterator[Objection]:
    for name in sorted(known.inputs | known.outputs):
        found = known.types.get(name)
        if found is not None and found not in table.types:
            why = f"TensorRT {table.name} has no such type"
            yield Objection(name, "", f"it is {found}", why, "cast it before the network", tensorrt=table.name)


def _node_objections(node: Any, opset: int, table: Table, known: Facts) -> Iterator[Objection]:
    if node.domain not in _STANDARD or node.op_type not in table.operators:
        seen = Seen(f"of {node.domain or 'ONNX'}", certain=False)
        yield _objection(table, node, seen, f"TensorRT {table.name}'s document does not name it: a plugin may serve it")
        return
    types = table.operators[node.op_type]
    if not types:
        why = f"TensorRT {table.name} does not support this operator"
        yield _objection(table, node, Seen(""), why, "replace it by operators that are supported, or fold it away")
        return
    yield from _opset_objections(node, opset, table)
    yield from _type_objections(node, table, known, types)
    for rule in table.rules:
        if rule.check != "functions" and (not rule.operators or node.op_type in rule.operators):
            yield from _ruled(node, rule, table, known)


def _opset_objections(node: Any, opset: int, table: Table) -> Iterator[Objection]:
    onnx = require("onnx", "judging a model for TensorRT")
    since = onnx.defs.get_schema(node.op_type, max_inclusive_version=opset, domain="").since_version
    if since > table.opset_max:
        seen = Seen(f"as opset {since} defines it", certain=False)
        remedy = f"export with opset {table.opset_max} or older"
        yield _objection(table, node, seen, f"documented up to opset {table.opset_max}", remedy)


def _type_objections(node: Any, table: Table, known: Facts, types: frozenset[str]) -> Iterator[Objection]:
    for place in _TYPED_BY.get(node.op_type, (0,)):
        names = node.output[:1] if place == "out" else node.input[int(place) : int(place) + 1]
        found = known.types.get(names[0]) if names else ""
        if found == "":
            continue
        if found is None:
            yield _objection(table, node, Seen("the type is not known", certain=False), "no type could be inferred")
        elif table.casts.get(found, found) not in types:
            # The parsers at hand refuse these wherever the document does; of other types they take more than it says.
            certain = found == "UINT8" or found not in table.types or node.op_type == "DequantizeLinear"
            why = f"it takes {', '.join(sorted(types))}"
            yield _objection(table, node, Seen(f"it is given {found}", certain), why, _type_remedy(node.op_type, found))


def _type_remedy(operator: str, found: str) -> str:
    if operator == "DequantizeLinear":
        return "quantize with the recipe tensorrt-int8: int8, and float biases"
    return "make Cast the first node after a uint8 input" if found == "UINT8" else "cast it to a type from the list"


def _ruled(node: Any, rule: Rule, table: Table, known: Facts) -> Iterator[Objection]:
    seen = CHECKS[rule.check](node, known, **rule.settings)
    if seen is not None:
        yield _objection(table, node, replace(seen, certain=seen.certain and rule.certain), rule.why, rule.remedy)


def _objection(table: Table, node: Any, seen: Seen, why: str, remedy: str = "") -> Objection:
    name = "" if node is None else node.name or next((output for output in node.output if output), "")
    operator = "" if node is None else node.op_type
    return Objection(name, operator, seen.what, why, remedy, seen.certain, table.name)
