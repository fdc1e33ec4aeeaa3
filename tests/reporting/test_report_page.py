from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetl.base.errors import BundleError, EdgetlError
from edgetl.core.bundle import CERTIFICATE, PREDICTIONS, Bundle
from edgetl.core.data import Dataset
from edgetl.inputs import load_dataset

from .page import CHROMIUM, Page, in_chromium, picture

pytest.importorskip("jinja2", reason="the page needs jinja2 (pip install 'edgetl[report]')")
from edgetl.reporting.html import render, write_report

MakeBundle = Callable[..., Bundle]


def test_page_says_in_words_what_the_certificate_says(make_bundle: MakeBundle) -> None:
    passing = {"verdict": "pass", "difference": -0.0017, "ci_low": -0.0085, "ci_high": 0.0052, "n": 2591}
    page = Page(render([make_bundle(certificate=passing)]))
    assert "With 95 % confidence the deployed model loses less than 1 point of accuracy" in page.text
    assert "On 2,591 held-out images" in page.text
    assert "a difference of −0.17 points, interval −0.85 to +0.52" in page.text
    assert "It lost 2 images that were right before and gained 1." in page.text
    assert "The artifact itself ran, from file to answer" in page.text
    assert "The certificate is unaltered and belongs to this very bundle" in page.text
    assert not page.open


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"verdict": "underpowered", "n": 40, "n_needed": 2470},
            "These 40 images cannot tell a loss of 1 point from none. About 2,470",
        ),
        ({"verdict": "pass", "margin": 0}, "With 95 % confidence the deployed model is better than the one"),
        ({"verdict": "underpowered", "margin": 0}, "do not prove the deployed model better"),
        ({"verdict": "fail", "difference": -0.05, "ci_high": -0.02}, "loses more than 1 point of accuracy"),
        ({"verdict": "fail", "difference": -0.02, "ci_high": 0.01}, "The loss that was observed is not below 1 point"),
        ({"verdict": "fail", "difference": 0.0, "ci_high": 0.01}, "did not survive, for the reasons below"),
    ],
)
def test_each_verdict_has_its_sentence(make_bundle: MakeBundle, changes: dict[str, object], sentence: str) -> None:
    assert sentence in Page(render([make_bundle(certificate=changes)])).text


def test_page_loads_nothing(make_bundle: MakeBundle) -> None:
    html = render([make_bundle("rpi5"), make_bundle("intel-cpu", backend="openvino")])
    page = Page(html)
    for _, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "data", "xlink:href", "poster", "background"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#"))
        assert not any(name.startswith("on") for name in attributes)
    assert not {"script", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in page.elements}
    assert "@import" not in html
    assert not re.search(r"url\(", html)
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:")


def test_hostile_names_are_text(make_bundle: MakeBundle, hostile: str) -> None:
    bundle = make_bundle(timing={"failures": [hostile], "device": {hostile: hostile}})
    html = render([bundle])
    page = Page(html)
    assert "<script" not in html
    assert not any("onerror" in attributes for _, attributes in page.elements)
    assert all((a.get("src") or "").startswith("data:image/") for a in page.all("img"))
    assert hostile in page.text
    assert any(hostile in (a.get("alt") or "") for a in page.all("img"))


def test_control_characters_do_not_reach_the_page(make_bundle: MakeBundle) -> None:
    html = render([make_bundle(certificate={"reasons": ["a\x1b[2Jb\x00c\u202ed"]})])
    assert "a\ufffd[2Jb\ufffdc\ufffdd" in html
    assert not set("\x00\x1b\u202e") & set(html)


def test_lost_and_gained_images_are_the_ones_predicted(make_bundle: MakeBundle, dataset: Dataset) -> None:
    page = Page(render([make_bundle()]))
    assert (len(page.all("figure", "lost")), len(page.all("figure", "gained"))) == (2, 1)
    lost = [dataset.split("certify")[i].path for i in (3, 9)]

    def after(name: str) -> str:
        return dataset.classes[(dataset.classes.index(name) + 1) % len(dataset.classes)]

    alts = [a["alt"] or "" for a in page.all("img")]
    assert [alt for alt in alts if alt.startswith("lost")] == [
        f"lost {path}: true {(name := path.rsplit('/', 1)[0])}; before {name}; after {after(name)}" for path in lost
    ]
    shown = picture(page.all("img")[0]["src"]).convert("RGB")
    assert shown.size == (160, 96)
    with Image.open(dataset.root / lost[0]) as original:
        expected = np.asarray(original.resize(shown.size), float)
    assert np.abs(np.asarray(shown, float) - expected).mean() < 12


def test_images_that_moved_are_found_with_data_root(make_bundle: MakeBundle, dataset: Dataset, tmp_path: Path) -> None:
    gone = make_bundle(data=replace(dataset, root=tmp_path / "nowhere"))
    page = Page(render([gone]))
    assert not page.all("img")
    assert page.text.count("Not shown: the file is not there any more") == 3
    assert len(page.all("figure", "sample")) == 3
    assert len(Page(render([gone], data_root=dataset.root)).all("img")) == 3


def test_changed_and_foreign_files_are_not_shown(make_bundle: MakeBundle, dataset: Dataset, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(dataset.root, root)
    Image.new("RGB", (9, 9)).save(root / dataset.split("certify")[3].path)
    Image.new("RGB", (9, 9)).save(tmp_path / "secret.png")
    bundle = make_bundle()
    saved = dict(np.load(bundle.path / PREDICTIONS))
    saved["paths"] = saved["paths"].astype("U300")
    saved["paths"][9] = "../secret.png"
    np.savez(bundle.path / PREDICTIONS, **saved)
    page = Page(render([bundle], data_root=root))
    assert "the file has changed since" in page.text
    assert "not one of the samples that were split" in page.text
    assert len(page.all("img")) == 1
    assert "The seal is broken" in page.text


def test_small_images_stay_sharp(make_bundle: MakeBundle, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    for name in "abcd":
        (tmp_path / "tiny" / name).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)).save(tmp_path / "tiny" / name / f"{i}.png")
    data = load_dataset(tmp_path / "tiny")
    page = Page(render([make_bundle(data=data)]))
    (first, *_) = [a["src"] for a in page.all("img", "small-image")]
    with Image.open(data.root / data.split("certify")[3].path) as original:
        assert np.array_equal(np.asarray(picture(first)), np.asarray(original.convert("RGB")))


def test_bundle_that_could_only_be_simulated(make_bundle: MakeBundle) -> None:
    page = Page(render([make_bundle("jetson-orin-nano", backend="tensorrt", executed="simulated", bench=False)]))
    assert "The artifact did not run on a jetson-orin-nano" in page.text
    assert "— no latency: it was only simulated" in page.text
    assert len(page.all("svg", "chart")) == 2


def test_bundle_without_records(make_bundle: MakeBundle) -> None:
    page = Page(render([make_bundle(executed=None, bench=False)]))
    assert "There is no certificate yet" in page.text
    assert "There are no saved predictions" in page.text
    assert not page.all("svg")


def test_latency_shows_every_sample_and_marks_only_what_they_support(make_bundle: MakeBundle) -> None:
    html = render([make_bundle()])
    page = Page(html)
    assert (len(page.all("path", "curve")), len(page.all("circle", "mark"))) == (2, 6)
    few = Page(render([make_bundle("rpi5", timed=300)]))
    assert len(few.all("circle", "mark")) == 4
    assert "— 300 samples 368 are needed" in few.text
    assert "400 samples from 2.00 to 9.50 ms" in page.text
    deployed = next(a["d"] for a in page.all("path", "deployed"))
    assert deployed is not None
    heights = [float(y) for y in re.findall(r"V([\d.]+)", deployed)]
    columns = [float(x) for x in re.findall(r"H([\d.]+)", deployed)]
    assert heights == sorted(heights, reverse=True)
    assert columns == sorted(columns)
    assert heights[-1] == 14


def test_times_of_batches_are_called_so_in_the_page(make_bundle: MakeBundle) -> None:
    text = Page(render([make_bundle(timing={"batch": 8, "images_per_query": 8})])).text
    assert text.count("a batch of 8 images") >= 4
    assert "one image" not in text


def test_many_classes_are_all_in_the_table(make_bundle: MakeBundle) -> None:
    classes = {
        f"class {i}": {
            "n": i, "reference_recall": 0.9 if i else None, "deployed_recall": 0.8 if i else None,
            "difference": -0.1 if i == 150 else 0.0 if i else None, "adjusted_p": 1.0, "p": 1.0, "lost": 0,
            "gained": 0, "collapsed": False,
        }
        for i in range(200)
    }  # fmt: skip
    page = Page(render([make_bundle(certificate={"classes": classes})]))
    assert len(page.all("circle", "before")) == 24
    assert all(f"class {i} " in page.text for i in range(200))
    assert "class 150: 90.0 % before, 80.0 % after" in page.text
    assert "the 24 that changed most" in page.text


def test_bundles_certified_on_different_images_are_not_compared(make_bundle: MakeBundle) -> None:
    first, second = make_bundle("rpi4"), make_bundle("rpi5", certificate={"hashes": {"splits": "other"}})
    assert "do not compare" in Page(render([first, second])).text
    assert "do not compare" not in Page(render([first, make_bundle("intel-cpu")])).text


def test_page_is_accessible(make_bundle: MakeBundle) -> None:
    html = render([make_bundle("rpi5"), make_bundle("rpi5-b"), make_bundle("rpi4", executed=None, bench=False)])
    page = Page(html)
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert [name for name, times in Counter(ids).items() if times > 1] == []
    for chart in page.all("svg"):
        if chart.get("aria-hidden") == "true":
            continue
        assert set((chart["aria-labelledby"] or "").split()) <= set(ids)
    assert {a.get("scope") for a in page.all("th")} == {"col", "row"}
    assert all(a.get("alt") for a in page.all("img"))
    assert page.all("html")[0]["lang"] == "en"
    assert all((a["href"] or "")[1:] in ids for a in page.all("a"))
    assert "prefers-color-scheme: dark" in html


def test_page_is_the_same_for_the_same_bundles(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundles = [make_bundle("rpi5"), make_bundle("rpi4")]
    first = write_report(bundles, tmp_path / "new" / "a.html")
    assert first == tmp_path / "new" / "a.html"
    assert first.read_bytes() == write_report(bundles, tmp_path / "b.html").read_bytes()
    assert [p.name for p in first.parent.iterdir()] == ["a.html"]


def test_no_bundle_and_an_altered_record_are_refused(make_bundle: MakeBundle, tmp_path: Path) -> None:
    with pytest.raises(EdgetlError, match="no bundle"):
        write_report([], tmp_path / "a.html")
    bundle = make_bundle()
    text = (bundle.path / CERTIFICATE).read_text()
    (bundle.path / CERTIFICATE).write_text(text.replace('"underpowered"', '"pass"'))
    with pytest.raises(BundleError, match="altered"):
        write_report([bundle], tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()


@pytest.mark.parametrize("kept", [0, 2, 200, -100])
def test_damaged_predictions_are_refused(make_bundle: MakeBundle, tmp_path: Path, kept: int) -> None:
    bundle = make_bundle()
    file = bundle.path / PREDICTIONS
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(BundleError, match=r"predictions\.npz is damaged"):
        write_report([bundle], tmp_path / "a.html")


def test_predictions_of_unequal_length_are_refused(make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    saved = dict(np.load(bundle.path / PREDICTIONS))
    np.savez(bundle.path / PREDICTIONS, **{**saved, "paths": saved["paths"][1:]})
    with pytest.raises(BundleError, match="no predictions of its 15 samples"):
        render([bundle])


def test_emulated_and_real_devices_are_told_apart(make_bundle: MakeBundle) -> None:
    emulated = {"executed_on": {"device": "pi-in-a-box", "kind": "emulated"}}
    page = Page(render([make_bundle("rpi5", executed="simulated", bench=False, certificate=emulated)]))
    assert "but on an emulated CPU (pi-in-a-box)" in page.text
    assert "The artifact did not run on a rpi5" in page.text
    real = Page(render([make_bundle("rpi4", executed="device", certificate={"executed_on": {"device": "desk"}})]))
    assert "The artifact ran on a rpi4 device (desk)" in real.text
    assert "did not run" not in real.text


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: the page is not rendered")
def test_page_renders_in_chromium(make_bundle: MakeBundle, tmp_path: Path, hostile: str) -> None:
    bundles = [make_bundle(), make_bundle("jetson", backend="tensorrt", executed="simulated", bench=False)]
    page = write_report(bundles, tmp_path / "report.html")
    html = in_chromium(page, tmp_path / "profile")
    rendered = Page(html)
    assert len(rendered.all("figure", "sample")) == len(rendered.all("img")) == 6
    assert len(rendered.all("svg", "chart")) == 1 + 3 + 2
    assert len(rendered.all("section", "bundle")) == 2
    assert "<script" not in html
    assert hostile in rendered.text
