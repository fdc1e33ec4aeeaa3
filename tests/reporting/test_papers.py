"""A bundle's papers say what its certificate says, in a form that programs take, and belong to it alone."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgetl
from edgetl.base.errors import BundleError, CertifyError
from edgetl.base.extras import PROVIDERS
from edgetl.base.storage import read_json, readable_json
from edgetl.core.adoption import MAYBE_SEEN, Adoption
from edgetl.core.bill import BillSeal, sealed_bill
from edgetl.core.bundle import BILL, CERTIFICATE, MANIFEST, MODEL_CARD, Bundle, load_bundle
from edgetl.core.licences import NOT_STATED, PACKAGES, licences_beside, named, sources_of, spdx
from edgetl.core.run import load_run
from edgetl.reporting.papers import papers
from tests.records import GOLDEN

Cli = Callable[..., Any]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The golden bundle, judged again, so that it has papers."""
    folder = Path(shutil.copytree(GOLDEN, tmp_path / "bundle"))
    edgetl.verify(folder)
    return folder


def refusals(content: bytes) -> list[str]:
    """What CycloneDX's own schema objects to, strictly."""
    reason = "cyclonedx-python-lib[json-validation] (edgetl[dev]) holds the schema"
    validation = pytest.importorskip("cyclonedx.validation.json", reason=reason)
    schema = pytest.importorskip("cyclonedx.schema", reason=reason)
    newest = max(schema.SchemaVersion, key=lambda version: version.value)
    assert json.loads(content)["specVersion"] == ".".join(map(str, newest.value))
    found = validation.JsonStrictValidator(newest).validate_str(content.decode())
    return [] if found is None else [str(found)]


def component(bill: Any, kind: str) -> list[Any]:
    return [part for part in bill["components"] if part["type"] == kind]


def test_the_schema_takes_it(bundle: Path) -> None:
    assert refusals((bundle / BILL).read_bytes()) == []
    assert refusals((bundle / BILL).read_bytes().replace(b'"bomFormat"', b'"bomForm"'))


def test_it_says_what_the_certificate_says(bundle: Path) -> None:
    bill, certificate = read_json(bundle / BILL), read_json(bundle / CERTIFICATE)
    model = bill["metadata"]["component"]
    told = {entry["name"].removeprefix("edgetl:"): entry["value"] for entry in model["properties"]}
    for name in ("verdict", "metric", "executed", "runtime", "precision", "method"):
        assert told[name] == certificate[name]
    assert (int(told["n"]), float(told["margin"])) == (certificate["n"], certificate["margin"])
    assert model["hashes"][0]["content"] == certificate["hashes"]["model"]
    figures = {m["type"]: m for m in model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]}
    score, gain = certificate["scores"]["accuracy"], figures["gain in accuracy of the deployed over the trained model"]
    assert float(figures["accuracy of the deployed model"]["value"]) == pytest.approx(score["deployed"], rel=1e-5)
    assert float(gain["value"]) == pytest.approx(score["difference"], rel=1e-5)
    bounds = [float(gain["confidenceInterval"][f"{end}Bound"]) for end in ("lower", "upper")]
    assert bounds == pytest.approx([score["ci_low"], score["ci_high"]], rel=1e-5)
    worst = min(certificate["classes"].values(), key=lambda entry: entry["deployed_recall"])["deployed_recall"]
    assert float(figures["recall of the deployed model"]["value"]) == worst
    limits = model["modelCard"]["considerations"]["technicalLimitations"]
    assert limits[0] == load_bundle(bundle).certificate.sentence()  # type: ignore[union-attr]
    assert set(certificate["notes"]) < set(limits)
    assert any("verdict is underpowered" in limit for limit in limits)
    files = {part["name"]: part["hashes"][0]["content"] for part in component(bill, "file")}
    assert files == {name: entry["sha256"] for name, entry in read_json(bundle / MANIFEST)["files"].items()}


def test_it_names_what_the_bundle_needs(bundle: Path) -> None:
    bill = read_json(bundle / BILL)
    tools = {part["name"]: part["licenses"][0] for part in component(bill, "library")}
    assert tools["openvino"] == {"license": {"id": "Apache-2.0"}}
    assert tools["pillow"] == {"license": {"id": "MIT-CMU"}}
    assert tools["numpy"] == {"expression": PACKAGES["numpy"]}
    (data,) = component(bill, "data")
    assert (data["name"], data["licenses"]) == ("photos", [{"license": {"name": NOT_STATED}}])


def test_the_page_for_people(bundle: Path) -> None:
    page = (bundle / MODEL_CARD).read_text(encoding="utf-8")
    certificate = load_bundle(bundle).certificate
    assert certificate is not None
    assert "**Verdict at its margin: underpowered.**" in page
    assert "| photos | not stated |" in page
    assert "−4.45 to +8.25" in page
    assert "green: The deployed model finds 25.00 % of its 20 images" in page
    assert "not tested under blur" in page


def test_they_are_written_anew_with_each_certificate(bundle: Path) -> None:
    before = {name: (bundle / name).read_bytes() for name in (BILL, MODEL_CARD)}
    edgetl.verify(bundle)
    assert before == {name: (bundle / name).read_bytes() for name in before}
    edgetl.verify(bundle, margin=0.2)
    assert all((bundle / name).read_bytes() != content for name, content in before.items())
    seal = {entry["name"]: entry["value"] for entry in read_json(bundle / BILL)["properties"]}
    assert seal["edgetl:certificate"] == read_json(bundle / CERTIFICATE)["digest"]
    assert seal["edgetl:manifest"] == load_bundle(bundle).digest
    assert edgetl.check(bundle) is None


def test_bundles_without_papers_are_read_as_before() -> None:
    assert not (GOLDEN / BILL).exists()
    assert edgetl.check(GOLDEN) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"underpowered"', '"pass"'),
        lambda text: text.replace('"version": 1', '"version":  1'),
        lambda text: text.replace("edgetl:digest", "edgetl:digesu"),
        lambda text: "[]",
        lambda text: '{"properties": [1]}',
        lambda text: text[:-3],
    ],
)
def test_what_was_altered_is_refused(bundle: Path, change: Callable[[str], str]) -> None:
    text = (bundle / BILL).read_text(encoding="utf-8")
    assert change(text) != text
    (bundle / BILL).write_text(change(text), encoding="utf-8")
    with pytest.raises(BundleError, match=r"bom\.cdx\.json"):
        load_bundle(bundle)


def test_what_is_sealed_again_does_not_follow(bundle: Path) -> None:
    bill = read_json(bundle / BILL)
    seal = BillSeal(*(entry["value"] for entry in bill.pop("properties")[:2]))
    bill["metadata"]["component"]["description"] = "To tell anything."
    (bundle / BILL).write_bytes(readable_json(sealed_bill(bill, seal)))
    assert load_bundle(bundle)
    assert "bom.cdx.json is not what this edgetl writes of its certificate" in str(edgetl.check(bundle))
    (bundle / BILL).write_bytes(readable_json(sealed_bill(bill, replace(seal, manifest="0" * 64))))
    with pytest.raises(BundleError, match="belongs to another bundle"):
        load_bundle(bundle)
    (bundle / BILL).unlink()
    with (bundle / MODEL_CARD).open("a", encoding="utf-8") as page:
        page.write("- It is good for everything.\n")
    assert "MODEL_CARD.md is not what this edgetl writes" in str(edgetl.check(bundle))
    edgetl.verify(bundle)
    assert edgetl.check(bundle) is None


def test_without_a_certificate_there_are_none(bundle: Path) -> None:
    (bundle / CERTIFICATE).unlink()
    with pytest.raises(CertifyError, match="has no certificate"):
        papers(load_bundle(bundle))


def judged(bundle: Path, **changes: Any) -> tuple[Any, str]:
    """The papers that a bundle would have, were its run's record another."""
    opened = load_bundle(bundle)
    run = opened.manifest.run
    assert run is not None
    lineage = changes.pop("lineage", opened.manifest.lineage)
    told = replace(opened.manifest, run=replace(run, **changes), lineage=lineage)
    made = papers(Bundle(opened.path, told))
    assert refusals(made[BILL]) == []
    return json.loads(made[BILL]), made[MODEL_CARD].decode()


def test_a_model_that_was_trained_elsewhere(bundle: Path) -> None:
    bill, page = judged(bundle, adoption=Adoption(source="onnx", model="m.onnx", sha256="0" * 64))
    limits = bill["metadata"]["component"]["modelCard"]["considerations"]["technicalLimitations"]
    assert any("trained elsewhere: on which samples" in limit for limit in limits)
    assert "It was trained elsewhere" in page
    assert MAYBE_SEEN.startswith("The model may have been trained on these samples")


def test_weights_and_data_with_their_licences(bundle: Path) -> None:
    lineage = {
        "weights": "run/weights.safetensors",
        "licence": "",
        "data_licences": {"photos": "CC-BY-NC-4.0", "more": "as the owner says"},
        "from": {"digest": "1", "weights": "hub: x", "weights_sha256": "ab" * 32, "licence": "apache-2.0"},
    }
    bill, page = judged(bundle, lineage=lineage)
    models = {part["name"]: part for part in component(bill, "machine-learning-model")}
    assert list(models) == ["hub: x"]
    assert models["hub: x"]["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert models["hub: x"]["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    data = {part["name"]: part["licenses"] for part in component(bill, "data")}
    assert data == {
        "photos": [{"license": {"id": "CC-BY-NC-4.0"}}],
        "more": [{"license": {"name": "as the owner says"}}],
    }
    assert "| data | photos | CC-BY-NC-4.0 |" in page


def test_names_that_mean_something_to_markdown(bundle: Path) -> None:
    _, page = judged(bundle, backbone="<script>|[x](y)\x1b[2J")
    assert "\\<script\\>\\|\\[x\\](y)\ufffd\\[2J" in page


def test_several_tasks_and_samples_that_nobody_labelled(bundle: Path) -> None:
    opened = load_bundle(bundle)
    certificate = opened.certificate
    assert certificate is not None
    whole = replace(certificate, parts={"colour": replace(certificate, labelled_by="model")})
    opened.write_record(CERTIFICATE, whole.to_json())
    bill, page = judged(bundle)
    figures = bill["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert {figure.get("slice", "") for figure in figures} >= {"", "task colour", "task colour, class green, 20 images"}
    assert "accuracy (agreement with the trained model) of the deployed model | task colour |" in page


@pytest.mark.parametrize(
    ("stated", "known"),
    [
        ("apache-2.0", "Apache-2.0"),
        (" MIT  AND cc-by-4.0 ", "MIT AND CC-BY-4.0"),
        ("MIT OR LicenseRef-mine", "MIT OR LicenseRef-mine"),
        ("apple-ascl", ""),
        ("MIT AND", ""),
        ("MIT Apache-2.0", ""),
        ("MIT and ISC", ""),
        ("", ""),
    ],
)
def test_names_of_licences(stated: str, known: str) -> None:
    assert spdx(stated) == known
    assert named(stated) == (known or " ".join(stated.split()))


def test_every_known_licence_is_one_of_spdx(bundle: Path) -> None:
    """The schema lists them all; so does the package's own metadata for what is installed here."""
    from edgetl.core.licences import _IDENTIFIERS

    assert len(set(_IDENTIFIERS)) == len(_IDENTIFIERS)
    stated = {str(number): name for number, name in enumerate(_IDENTIFIERS)}
    bill, _ = judged(bundle, lineage={"data_licences": stated})
    data = [part["licenses"][0]["license"].get("id") for part in component(bill, "data")]
    assert data == [None, *_IDENTIFIERS]
    for module, licence in PACKAGES.items():
        package = PROVIDERS.get(module, (module, ""))[0]
        try:
            said = importlib.metadata.metadata(package)
        except importlib.metadata.PackageNotFoundError:
            continue
        if said["License-Expression"]:
            assert licence == said["License-Expression"]
        else:
            classes = " ".join(said.get_all("Classifier") or ())
            assert licence.split("-")[0] in classes or "Proprietary" in classes


def test_what_lies_beside_data(tmp_path: Path) -> None:
    for name in ("photos", "bare", "empty", "binary"):
        (tmp_path / name).mkdir()
    (tmp_path / "rows.csv").touch()
    texts = {
        "photos": "SPDX-FileCopyrightText: 2026 A\nSPDX-License-Identifier: cc-by-4.0\nSPDX-License-Identifier: MIT\n",
        "rows.csv": "# SPDX-License-Identifier: our own terms\r\n",
        "empty": "CC-BY-4.0\n",
        "absent": "SPDX-License-Identifier: MIT\n",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.license").write_bytes(text.encode())
    (tmp_path / "binary.license").write_bytes(b"\xff" * 100_000)
    names = ("photos", "bare", "empty", "binary", "rows.csv", "absent")
    found = licences_beside([*(tmp_path / name for name in names), "digits"])
    assert found == {"photos": "CC-BY-4.0 AND MIT", "rows.csv": "our own terms"}


def test_a_lineage_of_any_shape_gives_sources() -> None:
    shapes: list[Any] = [None, 1, "x", [], {}, {"a": [1]}, {"weights": {}}, {"from": 1}]
    for name in ("weights", "licence", "weights_sha256", "data_licences", "from"):
        for shape in shapes:
            for source in sources_of({"weights": "w", name: shape}, "d"):
                assert isinstance(source.stated, str)


def test_from_data_to_papers(edgetl: Cli, tmp_path: Path) -> None:
    """Numbers with a licence beside them: a run remembers it, and its bundle's papers name it."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4)).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=x, target=(x @ [1, 2, 3, 4]).astype(np.float64))
    (tmp_path / "rows.npz.license").write_text("SPDX-License-Identifier: CC0-1.0\n", encoding="utf-8")
    options = ("--epochs", "1", "--quiet")
    done = edgetl("finetune", tmp_path / "rows.npz", "--out", tmp_path / "run", "--task", "regression", *options)
    assert done.returncode == 0, done.stderr
    assert load_run(tmp_path / "run").lineage["data_licences"] == {"rows.npz": "CC0-1.0"}
    export = ("export", tmp_path / "run", "--target", "x86-generic", "--precision", "fp32", "--out", tmp_path / "out")
    done = edgetl(*export, "--no-bench", "--quiet")
    assert done.returncode == 0, done.stderr
    bill = read_json(tmp_path / "out" / "x86-generic" / BILL)
    assert refusals((tmp_path / "out" / "x86-generic" / BILL).read_bytes()) == []
    assert component(bill, "data")[0]["licenses"] == [{"license": {"id": "CC0-1.0"}}]
    assert component(bill, "machine-learning-model") == []
    assert "classes" not in bill["metadata"]["component"]["description"]
