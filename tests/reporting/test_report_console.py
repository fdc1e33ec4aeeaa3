from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable

import pytest
from rich.console import Console

from edgetl.base.progress import tracked
from edgetl.core.bundle import Bundle
from edgetl.reporting.console import console_progress, print_results, print_table
from edgetl.reporting.summary import rows

MakeBundle = Callable[..., Bundle]

_LONG = {
    "verdict": "underpowered",
    "n_needed": 2470,
    "difference": -0.1034,
    "ci_low": -0.1234,
    "ci_high": -0.0812,
    "n": 12_591,
}


def plain(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=False)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_results_fit_80_columns_and_lose_nothing(make_bundle: MakeBundle) -> None:
    console = plain()
    bundles = [
        make_bundle("x86-generic", certificate={"verdict": "pass", "reference_score": 0.9746}),
        make_bundle("jetson-orin-nano", backend="tensorrt", executed="simulated", bench=False, certificate=_LONG),
    ]
    print_results(console, rows(bundles))
    shown = text(console)
    assert max(map(len, shown.splitlines())) <= 80
    for needle in ("x86-generic", "onnxruntime int8", "on the host", "97.46 %", "pass"):
        assert needle in shown
    for needle in ("jetson-orin-nano", "tensorrt int8", "simulated", "underpowered", "needs 2,470", "n 12,591"):
        assert needle in shown
    assert re.search(r" 2\.\d\dx ", shown)
    assert re.search(r" 2\.\d\d…2\.\d\d ", shown)
    assert "−10.34" in shown
    assert "−12.34…−8.12" in shown


def test_unmeasured_latency_is_a_dash_with_its_reason(make_bundle: MakeBundle) -> None:
    console = plain(200)
    print_results(console, rows([make_bundle("jetson-thor", backend="tensorrt", executed="simulated", bench=False)]))
    shown = text(console)
    assert "note     jetson-thor: no latency: it was only simulated" in shown
    assert "—" in shown
    assert "x " not in shown.split("note")[0]


def test_failures_and_missing_certificates_are_in_words(make_bundle: MakeBundle) -> None:
    console = plain(200)
    slow = make_bundle("rpi5", timing={"failures": ["slower than its float twin: 0.93x"], "slower_than_float": True})
    print_results(console, rows([slow, make_bundle("rpi4", executed=None, bench=False)]))
    shown = text(console)
    assert "failure  rpi5: slower than its float twin: 0.93x" in shown
    assert "not verified" in shown
    assert "not executed" in shown


def test_verdicts_are_coloured_on_a_terminal(make_bundle: MakeBundle) -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="standard")
    print_results(console, rows([make_bundle(certificate={"verdict": "fail"})]))
    assert "\x1b[1;31mfail\x1b[0m" in text(console)


def test_table_aligns_numbers_and_shows_markup_and_controls_as_text() -> None:
    console = plain()
    print_table(
        console, ["name", "size", "ok", "kinds"], [["[red]a\x1b[31m", 1200, True, ["u", "v"]], ["b", 7, None, []]]
    )
    lines = text(console).splitlines()
    assert "\x1b" not in text(console)
    assert "[red]a\ufffd[31m" in text(console)
    first, second = lines[-2:]
    assert first.index("1,200") + 5 == second.index("7") + 1
    assert "yes" in first
    assert "u, v" in first
    assert "—" in second


def test_table_wider_than_the_terminal_folds_instead_of_cutting() -> None:
    console = plain()
    print_table(console, ["a", "b"], [["x" * 100, "y" * 100]])
    shown = text(console)
    assert (shown.count("x"), shown.count("y")) == (100, 100)
    assert max(map(len, shown.splitlines())) <= 80


def test_progress_off_a_terminal_is_one_plain_line_a_task() -> None:
    console = plain()
    with console_progress(console) as progress:
        for _ in range(2):
            list(tracked(range(1500), "reading [bold]images", progress))
        progress("training", 1, 0, "loss 0.3")
    assert text(console).splitlines() == ["reading [bold]images (1,500)", "training"]


def test_progress_from_threads_is_still_one_line_a_task() -> None:
    console = plain()
    with console_progress(console) as progress:
        workers = [threading.Thread(target=progress, args=(f"task {i % 4}", 1, 9)) for i in range(40)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert sorted(text(console).splitlines()) == [f"task {i} (9)" for i in range(4)]


def test_progress_on_a_terminal_shows_task_steps_and_detail() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True, force_interactive=True)
    with console_progress(console) as progress:
        progress("fitting [x]", 0, 30)
        progress("fitting [x]", 30, 30, "loss 0.31\x1b")
        progress("compiling", 1, 0)
    last = text(console)[text(console).rindex("fitting") :]
    assert "fitting [x]" in last
    assert "30/30" in last
    assert "loss 0.31\ufffd" in last
    assert "compiling" in last


def test_quiet_progress_says_nothing() -> None:
    console = plain()
    with console_progress(console, quiet=True) as progress:
        progress("reading", 0, 3)
    assert text(console) == ""


def test_progress_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with console_progress() as progress:
        progress("reading", 0, 3)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "reading (3)\n")
