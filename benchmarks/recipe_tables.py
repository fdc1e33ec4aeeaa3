"""The sweep's results as markdown tables, and who won: by rules, from the files alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgetl.certify import mcnemar_loss

Row = Mapping[str, Any]
#: Chance that a loss or a gain counts, though there is none.
LEVEL = 0.05
#: A ratio of times or instructions counts from here; a file timed against itself moves less.
SAME = 1.02


def winner(result: Mapping[str, Any]) -> tuple[str, str]:
    """Winner and runner-up among the files of a part that was timed.

    The default, which is first, is beaten by a file that is faster by more than 2 % (its whole 95 % interval) and loses
    nothing beyond chance, neither against float nor against the default; or that gains accuracy beyond chance and is
    not slower. Runner-up is, of the others without a loss beyond chance, the fastest; of those within 2 % of it, the
    one whose logits are nearest to float.
    """
    rows, order = result["rows"], [name for name in result["order"] if name != "float32"]
    default = order[0]
    better = [name for name in order[1:] if _beats(rows[name])]
    first = _fastest(rows, better) if better else default
    rest = [name for name in order if name != first and not _lost(rows[name])]
    return first, _fastest(rows, rest)


def arm_winner(result: Mapping[str, Any], backend: str) -> tuple[str, str]:
    """The same on emulated Arm, for one runtime, with instructions in the place of times."""
    rows = {name: row for name, row in arm_rows(result, backend).items() if "lost" in row and not _lost(row)}
    names: list[str] = []
    while rows and len(names) < 2:
        least = min(row["instructions"] for row in rows.values())
        near = [name for name, row in rows.items() if row["instructions"] <= least * SAME]
        names.append(min(near, key=lambda name: rows[name]["logit_noise"]))
        del rows[names[-1]]
    return names[0], names[1]


def arm_rows(result: Mapping[str, Any], backend: str) -> dict[str, dict[str, Any]]:
    """File → what was counted and how accurate it was, where both were measured."""
    rows: dict[str, dict[str, Any]] = {}
    for key in result["order"]:
        _, where, name = key.split(" | ")
        if where == backend:
            rows[name] = {**rows.get(name, {}), **result["rows"][key]}
    return rows


def table(result: Mapping[str, Any]) -> str:
    """A part's table."""
    kinds = {"no-vnni": _without_vnni, "aarch64": _arm, "options": _options}
    return kinds.get(result["part"], _timed)(result)


def _beats(row: Row) -> bool:
    against, ratio = row["against_default"], row["timing"]["this"]["speedup"]
    worse = mcnemar_loss(against["lost"], against["gained"]) < LEVEL
    gains = mcnemar_loss(against["gained"], against["lost"]) < LEVEL
    faster = ratio["ci_low"] > SAME and not worse and not _lost(row)
    return faster or (gains and ratio["ci_high"] >= 1 / SAME)


def _lost(row: Row) -> bool:
    return mcnemar_loss(row["lost"], row["gained"]) < LEVEL


def _fastest(rows: Mapping[str, Row], names: Sequence[str]) -> str:
    speed = {name: rows[name]["timing"]["this"]["speedup"]["value"] for name in names}
    near = [name for name in names if speed[name] * SAME >= max(speed.values())]
    return min(near, key=lambda name: rows[name]["logit_noise"])


def _timed(result: Mapping[str, Any]) -> str:
    head = ["file", "top-1", "against float, points", "lost, gained", "logit noise", "int8 MACs", "p50", "speed-up",
            "against default", "MB"]  # fmt: skip
    lines = []
    for name in result["order"]:
        row = result["rows"][name]
        this = row["timing"]["this"]
        against = row["timing"]["float"]["p50_ms"]["value"] / this["p50_ms"]["value"]
        lines.append([
            name, _share(row["accuracy"]), _interval(row), f"{row['lost']}, {row['gained']}",
            f"{row['logit_noise']:.3f}", _share(row["executed"]["integer_macs"]), f"{this['p50_ms']['value']:.2f} ms",
            f"{against:.2f}x", _ratio(this["speedup"]), f"{row['bytes'] / 1e6:.1f}",
        ])  # fmt: skip
    return markdown(head, lines)


def _without_vnni(result: Mapping[str, Any]) -> str:
    head = ["file", "where", "top-1 there", "with VNNI", "logit noise there", "with VNNI", "same answer"]
    lines = []
    for name in result["order"]:
        row, full = result["rows"][name], result["rows"][name]["with_vnni"]
        noise = [f"{found['logit_noise']:.3f}" for found in (row, full)]
        same = _share(row["against_with_vnni"]["agreement"])
        lines.append([name, row["place"], _share(row["accuracy"]), _share(full["accuracy"]), *noise, same])
    return markdown(head, lines)


def _arm(result: Mapping[str, Any]) -> str:
    head = ["file", "runtime", "instructions", "of float", "integer dot", "widening", "float", "top-1", "on x86",
            "same answer", "logit noise", "int8 MACs"]  # fmt: skip
    lines = []
    for backend in ("onnxruntime", "openvino"):
        rows = arm_rows(result, backend)
        for name, row in rows.items():
            counts = [f"{row[kind] / 1e6:.1f} M" for kind in ("integer_dot", "integer_widening", "float_multiply")]
            ratio = f"{row['instructions'] / rows['float32']['instructions']:.2f}"
            lines.append([name, backend, f"{row['instructions'] / 1e6:.1f} M", ratio, *counts, *_arm_accuracy(row)])
    return markdown(head, lines)


def _arm_accuracy(row: Row) -> list[str]:
    if "lost" not in row:
        return [""] * 5
    shares = [row["accuracy"], row["on_x86"]["accuracy"], row["against_x86"]["agreement"]]
    return [*map(_share, shares), f"{row['logit_noise']:.3f}", _share(row["executed"]["integer_macs"])]


def _options(result: Mapping[str, Any]) -> str:
    head = ["runtime", "setting", "threads", "edgetl's own", "so set", "speed-up"]
    lines = []
    for key in result["order"]:
        backend, threads, name = key.split(" | ")
        timing = result["rows"][key]["timing"]
        times = [f"{timing[which]['p50_ms']['value']:.2f} ms" for which in ("default", "this")]
        lines.append([backend, name, threads, *times, _ratio(timing["this"]["speedup"])])
    return markdown(head, lines)


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines))


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _interval(row: Row) -> str:
    low, middle, high = (100 * row[key] for key in ("ci_low", "difference", "ci_high"))
    return f"{middle:+.1f} ({low:+.1f} to {high:+.1f})"


def _ratio(ratio: Mapping[str, float]) -> str:
    return f"{ratio['value']:.2f}x ({ratio['ci_low']:.2f} to {ratio['ci_high']:.2f})"


def defaults(results: Mapping[str, Any]) -> str:
    """For each runtime and instruction set: winner and runner-up with their figures."""
    head = ["runtime, instruction set", "default", "its figures", "runner-up", "its figures"]
    lines = []
    for title, part in (("ONNX Runtime, x86-64", "ort_x86"), ("OpenVINO, x86-64", "openvino_x86")):
        first, second = winner(results[part])
        rows = results[part]["rows"]
        lines.append([title, first, _figures(rows[first]), second, _figures(rows[second])])
    for title, backend in (("ONNX Runtime, aarch64", "onnxruntime"), ("OpenVINO, aarch64", "openvino")):
        first, second = arm_winner(results["aarch64"], backend)
        rows = arm_rows(results["aarch64"], backend)
        lines.append([title, first, _arm_figures(rows[first]), second, _arm_figures(rows[second])])
    return markdown(head, lines)


def _figures(row: Row) -> str:
    timing = row["timing"]
    speedup = timing["float"]["p50_ms"]["value"] / timing["this"]["p50_ms"]["value"]
    return f"{speedup:.2f}x float ONNX Runtime, {_interval(row)} points, noise {row['logit_noise']:.3f}"


def _arm_figures(row: Row) -> str:
    millions = row["instructions"] / 1e6
    return f"{millions:.1f} M instructions (proxy), {_interval(row)} points, noise {row['logit_noise']:.3f}"
