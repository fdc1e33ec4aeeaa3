"""What was found, mended and tried off distribution, on the page."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from edgetl.core.bundle import Bundle

pytest.importorskip("jinja2", reason="the page needs jinja2 (pip install 'edgetl[report]')")
from edgetl.core.findings import KINDS
from edgetl.reporting import diagrams
from edgetl.reporting.html import render, write_report

from .page import CHROMIUM, Page, in_chromium

MakeBundle = Callable[..., Bundle]


#: The fields that certificates did not always have.
@pytest.fixture
def page(make_bundle: MakeBundle, full: dict[str, Any]) -> Page:
    return Page(render([make_bundle(certificate=changes(full))]))


def changes(full: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A whole certificate as changes of the one that a bundle is made with."""
    return {name: value for name, value in {**full, **more}.items() if name not in ("digest", "hashes")}


def numbers(attributes: list[dict[str, str | None]], name: str) -> list[float]:
    return [float(a[name] or "nan") for a in attributes]


def test_findings_come_first_with_severity_and_remedy(page: Page) -> None:
    text = page.text
    assert text.index("Findings") < text.index("Certificate", text.index("x86-generic · "))
    assert [a["class"] for a in page.all("li", "finding")] == ["finding fatal", "finding warning"]
    assert f"fatal {KINDS['calibration-overlap'].title} 3 of 64 calibration images" in text
    assert f"Remedy: {KINDS['calibration-overlap'].remedy}" in text
    assert "blocks.0.0.conv_dw , blocks.0.1.conv_dw" in text
    assert "and 2 more" in text
    assert "first crack/07.png" in text


def test_a_finding_is_not_repeated_among_the_notes(make_bundle: MakeBundle, full: dict[str, Any]) -> None:
    notes = [f"{full['findings'][1]['what']} To do: nothing.", "Class 'x' has no image."]
    text = Page(render([make_bundle(certificate=changes(full, notes=notes))])).text
    assert "Class 'x' has no image." in text
    assert "To do: nothing." not in text


def test_ladder_shows_every_rung_and_marks_the_first_that_diverges(page: Page, full: dict[str, Any]) -> None:
    rungs = page.all("li", "rung")
    assert [a["class"] for a in rungs] == ["rung", "rung", "rung diverges first", "rung"]
    assert full["first_divergence"] == "Q/DQ in float"
    assert "The first rung that diverges is 'Q/DQ in float'." in page.text
    assert page.text.count("first divergence agreement") == 1
    third = full["ladder"][2]
    assert f"logit distance {third['logit_distance']:.3f} KL {third['kl']:.3f} nats" in page.text
    assert f"agreement {100 * third['agreement']:.2f} %" in page.text
    bars = numbers(page.all("rect", "full"), "width")
    assert bars == pytest.approx([100 * rung["accuracy"] for rung in full["ladder"]], abs=0.06)
    assert "Logit distance" in page.text


def test_layers_are_ranked_with_bars_as_long_as_their_ratio(page: Page, full: dict[str, Any]) -> None:
    charts = [a for a in page.all("rect", "bar") if "trial" not in (a["class"] or "")]
    assert len(charts) == 2 * 12
    widths = numbers(charts[:12], "width")
    ratios = [layer["sqnr_db"] for layer in full["layers"][:12]]
    assert [w / widths[-1] for w in widths] == pytest.approx([r / ratios[-1] for r in ratios], abs=0.01)
    assert [(a["class"] or "").split()[1] for a in charts[:3]] == ["weights", "activations", "weights"]
    assert "blocks.1.1.conv_dw" in page.text
    assert "The 3 noisiest of 30 make 59 % of all noise." in page.text
    assert "Layers before the repair" in page.text
    assert all(layer["consumer"] in page.text for layer in full["layers"])


def test_a_layer_with_more_noise_than_signal_has_a_bar_on_the_other_side() -> None:
    rows = [diagrams.Noise("dead", "weights", -120.0, 0.9), diagrams.Noise("fine", "weights", 44.0, 0.1)]
    root = ET.fromstring(diagrams.layers("x", rows))
    bad, good = (e for e in root.iter() if e.get("class") == "bar weights")
    assert float(bad.get("x", 0)) + float(bad.get("width", 0)) == pytest.approx(float(good.get("x", 0)), abs=0.2)
    assert float(bad.get("x", 0)) == 8
    assert "−120.0 dB, 90 %" in "".join(root.itertext())


def test_repair_shows_each_trial_its_cost_and_why_it_stopped(page: Page, full: dict[str, Any]) -> None:
    trials = full["repair"]["trials"]
    measured = [trial for trial in trials if trial["score"] is not None]
    points = [a for a in page.all("circle") if "trial" in (a["class"] or "").split()]
    assert len(points) == len(measured) == 8
    assert ["kept" in (a["class"] or "") for a in points] == [trial["kept"] for trial in measured]
    heights = numbers(points, "cy")
    order = sorted(range(8), key=lambda i: -measured[i]["score"])
    assert sorted(range(8), key=lambda i: heights[i]) == order
    assert "8 trials were made in 6.88 of 20.0 minutes. Mixed precision: 2 layers in float" in page.text
    assert "activations are asymmetric already" in page.text
    assert "9 mixed precision 2 layers in float: node_conv2d_3, node_conv2d_7 yes 97.27 % −0.39 3 2" in page.text


@pytest.mark.parametrize(
    ("repair", "sentence"),
    [
        (
            {"needed": False, "survived": True, "seconds": None, "stopped": "The default is good enough."},
            "No repair was needed. The default",
        ),
        (
            {"needed": True, "survived": False, "chosen": "default", "budget_minutes": 1.0, "seconds": 66.0,
             "stopped": "The budget of 1 minutes was spent at the remedy 'x'."},
            "0 trials were made in 1.10 of 1.00 minutes. The budget of 1",
        ),
        (
            {"needed": True, "survived": True, "chosen": "half precision", "budget_minutes": 0.0, "seconds": None,
             "stopped": "it is over."},
            "0 trials were made, and 'half precision' was chosen. It is over.",
        ),
    ],
)  # fmt: skip
def test_each_end_of_a_repair_has_its_sentence(
    make_bundle: MakeBundle, full: dict[str, Any], repair: dict[str, Any], sentence: str
) -> None:
    assert (
        sentence
        in Page(
            render(
                [
                    make_bundle(
                        certificate=changes(
                            full,
                            repair={"chosen": "default", "margin": 0.01, "budget_minutes": 5.0, "trials": [], **repair},
                        )
                    )
                ]
            )
        ).text
    )


def test_corruptions_are_small_multiples_on_one_scale(page: Page, full: dict[str, Any]) -> None:
    text, record = page.text, full["robustness"]
    assert record["summary"]["proven"]
    assert record["summary"]["sentence"] in text
    assert "400 of 1,240 certify images, 25 conditions" in text
    assert "The greatest loss is under blur at severity 4" in text
    panels = [a for a in page.all("svg", "chart") if (a["viewbox"] or "").startswith("0 0 240 ")]
    assert len(panels) == 5
    assert text.count("Accuracy under ") == 5
    worst = next(r for r in record["rows"] if (r["corruption"], r["severity"]) == ("noise", 5))
    assert f"severity 5: {100 * worst['reference_accuracy']:.1f} % reference" in text
    verdicts = Counter((a["class"] or "").split()[1] for a in page.all("circle", "dot") if a["r"] == "4.5")
    expected = Counter(row["verdict"] for row in record["rows"])
    expected["pass"] += 5
    assert verdicts == expected


def test_gain_and_probabilities_are_told(page: Page, full: dict[str, Any]) -> None:
    gain, found = full["transfer_gain"], full["probabilities"]
    assert f"The deployed model keeps {100 * gain['retained']:.1f} % of that gain" in page.text
    assert f"a linear probe on the frozen backbone on {100 * gain['baseline_accuracy']:.2f} %" in page.text
    assert f"calibration error {100 * found['reference_ece']:.2f} % before" in page.text
    assert f"threshold that keeps 90 % {found['threshold']['reference']:.3f}" in page.text.replace("\u00a0", " ")
    assert f"+{found['brier_difference']:.4f} +{found['brier_ci_low']:.4f} to" in page.text
    score = full["scores"]["balanced-accuracy"]
    assert f"balanced accuracy {100 * score['reference']:.2f} % {100 * score['deployed']:.2f} %" in page.text
    assert "accuracy (decides)" in page.text


@pytest.mark.parametrize(
    ("helped", "words"), [("worse", "The transfer did harm"), ("not shown", "It is not shown that the transfer helped")]
)
def test_a_transfer_that_did_not_help_has_no_share_of_a_gain(
    make_bundle: MakeBundle, full: dict[str, Any], helped: str, words: str
) -> None:
    gain = {**full["transfer_gain"], "helped": helped, "retained": None, "ci_low": None, "ci_high": None}
    html = render([make_bundle(certificate=changes(full, transfer_gain=gain))])
    assert words in Page(html).text
    assert "keeps" not in Page(html).text.split(words)[1].split("Probabilities")[0]
    assert "of the gain: 0 %" not in html


def test_a_gain_without_bounds_is_drawn_to_the_ends() -> None:
    root = ET.fromstring(diagrams.kept("x", 0.8, None, None))
    whiskers = [e for e in root.iter() if e.get("class") == "whisker"]
    assert [(e.get("x1"), e.get("x2")) for e in whiskers] == [("24", "456")]
    far = ET.fromstring(diagrams.kept("x", -40.0, -90.0, 12.0))
    places = [float(e.get(key, 0)) for e in far.iter() for key in ("x1", "x2", "cx") if e.get(key)]
    assert 24 <= min(places) <= max(places) <= 456


def test_many_trials_and_one_severity_still_draw() -> None:
    steps = [diagrams.Step(str(i), 0.5, None if i % 2 else 1.0, i % 3 == 0) for i in range(1, 41)]
    root = ET.fromstring(diagrams.repair_trials("x", "accuracy", steps, 0.5, 0.49))
    labels = [e.text for e in root.iter() if e.get("class") == "tick middle"]
    assert labels == [*(str(i) for i in range(1, 41, 2)), "trial"]
    panel = diagrams.severities("x", "blur", [diagrams.Condition(3, 0.4, 0.3, "fail")], 0.2, 0.5)
    assert "nan" not in panel + ET.tostring(root, encoding="unicode")


def test_a_certificate_with_little_in_it_has_its_page(make_bundle: MakeBundle) -> None:
    page = Page(render([make_bundle("rpi5")]))
    for heading in ("Findings", "Layers", "Repair", "Off distribution", "Transfer gain", "Probabilities"):
        assert heading not in page.text
    assert "Parity ladder" in page.text
    assert "Logit distance" not in page.text
    assert len(page.all("li", "rung")) == 3


def test_nothing_in_a_certificate_becomes_markup(make_bundle: MakeBundle, full: dict[str, Any], hostile: str) -> None:
    def poisoned(value: Any) -> Any:
        if isinstance(value, dict):
            keep = ("verdict", "executed", "severity", "helped", "metric", "kind", "cause")
            return {k: v if k in keep else poisoned(v) for k, v in value.items()}
        if isinstance(value, list):
            return [poisoned(item) for item in value]
        return f"{hostile}\x1b[2J" if isinstance(value, str) else value

    names = ("findings", "layers", "repair", "robustness", "transfer_gain", "ladder", "reasons", "notes")
    html = render([make_bundle(certificate=changes(full, **{name: poisoned(full[name]) for name in names}))])
    page = Page(html)
    assert "<script" not in html
    assert "\x1b" not in html
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert all((a.get("src") or "").startswith("data:image/") for a in page.all("img"))
    assert page.text.count(hostile) > 40
    assert not page.open


def test_ids_are_unique_and_every_chart_is_described(make_bundle: MakeBundle, full: dict[str, Any]) -> None:
    page = Page(render([make_bundle(name, certificate=changes(full)) for name in ("rpi4", "rpi5")]))
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert [name for name, times in Counter(ids).items() if times > 1] == []
    for drawn in page.all("svg", "chart"):
        assert set((drawn["aria-labelledby"] or "-").split()) <= set(ids)
    assert all(a.get("aria-hidden") == "true" for a in page.all("svg", "level"))


def test_every_class_of_a_chart_has_a_style(make_bundle: MakeBundle, full: dict[str, Any]) -> None:
    html = render([make_bundle(certificate=changes(full))])
    style = html[html.index("<style>") : html.index("</style>")]
    inside = [a for tag, a in Page(html).elements if tag in ("rect", "circle", "line", "path")]
    used = {name for a in inside for name in (a.get("class") or "").split()}
    assert [name for name in sorted(used) if not re.search(rf"\.{name}\b", style)] == []


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: the page is not rendered")
def test_full_page_renders_in_chromium(make_bundle: MakeBundle, full: dict[str, Any], tmp_path: Path) -> None:
    file = write_report([make_bundle(certificate=changes(full))], tmp_path / "report.html")
    frame = tmp_path / "frame.html"
    # Headless Chromium has a least width of its own; a frame has none. Its page is asked whether it is wider.
    frame.write_text(
        f"<iframe id=f scrolling=no src='{file.name}' style='width:400px;height:9000px;border:0'></iframe>"
        "<pre id=o></pre><script>"
        "onload=()=>{const d=f.contentDocument.documentElement;o.textContent=d.scrollWidth+' '+d.clientWidth}</script>"
    )
    wide = re.search(r'<pre id="o">(\d+) (\d+)</pre>', in_chromium(frame, tmp_path / "profile"))
    assert wide is not None
    assert wide[1] == wide[2] == "400"
