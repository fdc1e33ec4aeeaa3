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
    """Winner and runner-up among the files that ran on this machine.

    The default, which is first, is beaten by a file that is faster by more than 2 % (its whole 95 % interval) and loses
    nothing beyond chance, neither against float nor against the default; or that gains accuracy beyond chance and is
    not slower. Runner-up is, of the others without a loss beyond chance, the fastest; of those within 2 % of it, the
    one whose logits are nearest to float. Where no time was taken, the share of integer multiply-accumulates stands in
    for the ratio of times: it cannot show that a file is faster, only that it is slower.
    """
    rows, order = result["rows"], [name for name in result["order"] if name != "float32"]
    better = [name for name in order[1:] if _beats(rows[name])]
    first = _fastest(rows, better) if better else order[0]
    return first, _fastest(rows, [name for name in order if name != first and not _lost(rows[name])])


def arm_winner(result: Mapping[str, Any], backend: str) -> tuple[str, str]:
    """Fewest and second fewest instructions on emulated Arm among the files in a runtime that lose nothing there."""
    rows = {name: row for name, row in arm_rows(result, backend).items() if "lost" not in row or not _lost(row)}
    first, second, *_ = sorted(rows, key=lambda name: rows[name]["instructions"])
    return first, second


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


def _pace(row: Row) -> tuple[float, float, float]:
    """How fast against the default: lower bound, value, upper bound."""
    if "timing" not in row:
        return (row["executed"]["integer_macs"],) * 3
    ratio = row["timing"]["this"]["cpu_speedup"]
    return ratio["ci_low"], ratio["value"], ratio["ci_high"]


def _beats(row: Row) -> bool:
    against, (low, _, high) = row["against_default"], _pace(row)
    gains = _lost({"lost": against["gained"], "gained": against["lost"]})
    return (low > SAME and not _lost(against) and not _lost(row)) or (gains and high >= 1 / SAME)


def _lost(row: Row) -> bool:
    return bool(mcnemar_loss(row["lost"], row["gained"]) < LEVEL)


def _fastest(rows: Mapping[str, Row], names: Sequence[str]) -> str:
    speed = {name: _pace(rows[name])[1] for name in names}
    near = [name for name in names if speed[name] * SAME >= max(speed.values())]
    return min(near, key=lambda name: rows[name]["logit_noise"])


def _timed(result: Mapping[str, Any]) -> str:
    rows = result["rows"]
    clocked = any("timing" in row for row in rows.values())
    head = ["file", "top-1", "against float, points", "lost, gained", "logit noise", "int8 MACs", "MB"]
    lines = []
    for name in result["order"]:
        row = rows[name]
        lines.append([
            name, _share(row["accuracy"]), _interval(row), f"{row['lost']}, {row['gained']}",
            f"{row['logit_noise']:.3f}", _share(row["executed"]["integer_macs"]), f"{row['bytes'] / 1e6:.1f}",
            *(_clocked(row) if clocked else ()),
        ])  # fmt: skip
    return markdown([*head, *(("CPU time", "speed-up", "against default") if clocked else ())], lines)


def _clocked(row: Row) -> list[str]:
    if "timing" not in row:
        return [""] * 3
    this, floating = row["timing"]["this"], row["timing"]["float"]
    return [f"{this['cpu_ms']:.2f} ms", f"{floating['cpu_ms'] / this['cpu_ms']:.2f}x", _ratio(this["cpu_speedup"])]


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
    head = ["file", "runtime", "instructions", "of float", "integer dot", "widening", "float", "spread"]
    accuracy = ["top-1", "on x86", "same answer", "logit noise", "int8 MACs"]
    judged = any("lost" in row for row in result["rows"].values())
    lines = []
    for backend in ("onnxruntime", "openvino"):
        rows = arm_rows(result, backend)
        for name, row in rows.items():
            counts = [f"{row[kind] / 1e6:.1f} M" for kind in ("integer_dot", "integer_widening", "float_multiply")]
            ratio = f"{row['instructions'] / rows['float32']['instructions']:.2f}"
            cells = [name, backend, f"{row['instructions'] / 1e6:.1f} M", ratio, *counts, f"{row['spread']:.2%}"]
            lines.append([*cells, *(_arm_accuracy(row) if judged else ())])
    return markdown([*head, *(accuracy if judged else ())], lines)


def _arm_accuracy(row: Row) -> list[str]:
    if "lost" not in row:
        return [""] * 5
    shares = [row["accuracy"], row["on_x86"]["accuracy"], row["against_x86"]["agreement"]]
    return [*map(_share, shares), f"{row['logit_noise']:.3f}", _share(row["executed"]["integer_macs"])]


def _options(result: Mapping[str, Any]) -> str:
    head = ["runtime", "setting", "threads", "clock", "edgetl's own", "so set", "speed-up"]
    lines = []
    for key in result["order"]:
        backend, threads, name = key.split(" | ")
        timing = result["rows"][key].get("timing")
        if timing is None:
            continue
        # Threads that spin cost processor time and save time on the wall.
        clock, time, ratio = ("CPU", "cpu_ms", "cpu_speedup") if threads == "1" else ("wall", "p50_ms", "speedup")
        times = [f"{timing[which][time]:.2f} ms" for which in ("default", "this")]
        lines.append([backend, name, threads, clock, *times, _ratio(timing["this"][ratio])])
    return markdown(head, lines)


def runtimes(result: Mapping[str, Any]) -> str:
    """Runtimes on 64-bit Arm, from ``arm_runtimes.json``."""
    head = ["runtime", "MB", "x86-64 p50", "speed-up", "top-1", "instructions", "of float", "as on x86-64", "executed"]
    base = result["emulated"][result["baseline"]]["instructions"]["instructions"]
    lines = []
    for name, there in result["emulated"].items():
        here, count = result["x86_64"]["timing"]["artifacts"][name], there["instructions"]["instructions"]
        lines.append([
            name, f"{result['bytes'][name] / 1e6:.1f}", f"{here['p50_ms']['value']:.2f} ms", _ratio(here["speedup"]),
            f"{result['x86_64']['top1'][name]:.1f} %", f"{count / 1e6:.1f} M", f"{count / base:.2f}",
            _share(there["agreement"]), there["executed"]["precision"],
        ])  # fmt: skip
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
    """For each runtime and instruction set that was measured: winner and runner-up with their figures."""
    head = ["runtime, instruction set", "default", "its figures", "runner-up", "its figures"]
    lines = []
    for title, part in (("ONNX Runtime, x86-64", "ort_x86"), ("OpenVINO, x86-64", "openvino_x86")):
        if part in results:
            first, second = winner(results[part])
            rows = results[part]["rows"]
            lines.append([title, first, _figures(rows[first]), second, _figures(rows[second])])
    for title, backend in (("ONNX Runtime, aarch64", "onnxruntime"), ("OpenVINO, aarch64", "openvino")):
        rows = arm_rows(results.get("aarch64", {"order": ()}), backend)
        if len(rows) > 2:
            first, second = arm_winner(results["aarch64"], backend)
            lines.append([title, first, _arm_figures(rows[first]), second, _arm_figures(rows[second])])
    return markdown(head, lines)


def _figures(row: Row) -> str:
    integer = f"{_share(row['executed']['integer_macs'])} of the MACs in int8"
    clocked = [f"{_clocked(row)[1]} float"] if "timing" in row else []
    return ", ".join([*clocked, integer, f"{_interval(row)} points", f"noise {row['logit_noise']:.3f}"])


def _arm_figures(row: Row) -> str:
    return f"{row['instructions'] / 1e6:.1f} M instructions (proxy)"
