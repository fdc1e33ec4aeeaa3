"""The page of recipes is what was measured, the recipes in use won, and instructions are counted right."""

from __future__ import annotations

import json
import runpy
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import recipe_tables as tables
from benchmarks.instructions import count
from benchmarks.recipe_variants import VARIATIONS
from edgetl.compress.recipes import load_recipe, with_changes

ROOT = Path(__file__).resolve().parents[2]
#: The variation of the x86-64 recipe that is the default on 64-bit Arm.
ON_ARM = "s8, asymmetric"


def results(part: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / f"recipe_sweep_{part}.json").read_text())


def test_the_page_is_current() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "recipes.py"))
    written = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert written == script["page"](), "run: python docs/recipes.py"


def test_the_recipes_in_use_won() -> None:
    assert tables.winner(results("ort_x86"))[0] == "ort-x86-int8: default"
    assert tables.arm_winner(results("aarch64"), "onnxruntime")[0] == f"ort-x86-int8: {ON_ARM}"
    assert all(not VARIATIONS[recipe]["default"] for recipe in VARIATIONS)


def test_arm_uses_what_was_measured_under_the_other_name() -> None:
    measured = with_changes(load_recipe("ort-x86-int8"), **VARIATIONS["ort-x86-int8"][ON_ARM])
    arm = load_recipe("ort-aarch64-int8")
    assert replace(arm, name=measured.name, isa=measured.isa) == measured


def row(speedup: float, *, lost: int = 0, gained: int = 0, noise: float = 0.1) -> dict[str, Any]:
    ratio = {"value": speedup, "ci_low": speedup - 0.01, "ci_high": speedup + 0.01}
    return {
        "lost": lost,
        "gained": gained,
        "logit_noise": noise,
        "against_default": {"lost": lost, "gained": gained},
        "timing": {"this": {"cpu_speedup": ratio}},
    }


def won(**others: dict[str, Any]) -> tuple[str, str]:
    rows = {"default": row(1.0), **others}
    return tables.winner({"order": list(rows), "rows": rows})


def test_who_wins() -> None:
    assert won(near=row(1.02), slow=row(0.5)) == ("default", "near")
    assert won(fast=row(1.1), slow=row(0.5)) == ("fast", "default")
    assert won(wrong=row(1.1, lost=9), near=row(1.0)) == ("default", "near")
    assert won(right=row(1.0, gained=9), slow=row(0.9)) == ("right", "default")
    assert won(right=row(0.9, gained=9), slow=row(0.8)) == ("default", "right")
    assert won(loud=row(1.005, noise=0.2), quiet=row(1.0, noise=0.05)) == ("default", "quiet")


def test_without_times_integers_tell_who_is_slower() -> None:
    rows = {"default": row(1.0), "floating": row(1.0, gained=9), "quiet": row(1.0, noise=0.05)}
    for name, found in rows.items():
        del found["timing"]
        found["executed"] = {"integer_macs": 0.6 if name == "floating" else 1.0}
    assert tables.winner({"order": list(rows), "rows": rows}) == ("default", "quiet")


#: A loop of 11 instructions, 1,000 times, between two calls of getpriority; then exit.
PROGRAM = (
    *(0x528011A8, 0xD4000001),  # mov w8, 141; svc 0
    0x52807D09,  # mov w9, 1000
    *(0x4E829420, 0x6F82E020),  # sdot v0.4s, v1.16b, v2.16b; udot v0.4s, v1.16b, v2.4b[0]
    *(0x0E228023, 0x4E22C023),  # smlal v3.8h, v1.8b, v2.8b; smull2 v3.8h, v1.16b, v2.16b
    *(0x4E22CC24, 0x4F821024),  # fmla v4.4s, v1.4s, v2.4s; fmla v4.4s, v1.4s, v2.s[0]
    *(0x1E220825, 0x1F020C25),  # fmul s5, s1, s2; fmadd s5, s1, s2, s3
    0x4E228426,  # add v6.16b, v1.16b, v2.16b
    *(0x71000529, 0x54000001 | (-10 & 0x7FFFF) << 5),  # subs w9, w9, 1; b.ne ten back
    *(0x528011A8, 0xD4000001),
    *(0xD2800000, 0x52800BA8, 0xD4000001),  # mov x0, 0; mov w8, 93; svc 0
)


def elf(instructions: tuple[int, ...]) -> bytes:
    """A static aarch64 program of these instructions alone."""
    base, start = 0x400000, 64 + 56
    code = struct.pack(f"<{len(instructions)}I", *instructions)
    size = start + len(code)
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = identity + struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, base + start, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000) + code


@pytest.mark.skipif(count.missing() is not None, reason=f"needs {count.missing()} to count emulated instructions")
def test_every_instruction_is_counted_by_its_kind(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(elf(PROGRAM))
    program.chmod(0o755)
    found = count.between_marks(["-cpu", "max", str(program)], tmp_path / "work")
    # Around the loop: mov w9 before it, mov w8 and svc after it.
    assert found.tolist() == [[11 * 1000 + 3, 2000, 2000, 4000]]
