"""Predictions on disk: what comes back, and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetl.base.errors import CertifyError, EdgetlError
from edgetl.certify import Certificate, LogitEvidence, Predictions, certify_answers
from edgetl.tasks import TASKS

CLASSES = ("crack", "dent", "clean")


def predictions(n: int = 30, logits: bool = True, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    scores = rng.normal(0, 3, (2, n, len(CLASSES)))
    classes = {name: rng.integers(0, 3, n) for name in ("labels", "reference", "deployed", "float onnx")}
    return Predictions(
        task="classification",
        labels=classes["labels"],
        models=models(**{name: classes[name] for name in ("reference", "float onnx", "deployed")}),
        paths=tuple(f"crack/bild-ä-{i:05d}.jpg" for i in range(n)),
        sha256=tuple(f"{i:064x}" for i in range(n)),
        class_names=CLASSES,
        reference_logits=scores[0] if logits else None,
        deployed_logits=scores[1] if logits else None,
    )


def models(**classes: Any) -> dict[str, dict[str, Any]]:
    return {name: {"class": np.asarray(values)} for name, values in classes.items()}


def same(first: Predictions, second: Predictions) -> bool:
    def alike(a: Any, b: Any) -> bool:
        if isinstance(a, dict):
            return list(a) == list(b) and all(alike(a[key], b[key]) for key in a)
        if isinstance(a, LogitEvidence):
            return a.steps == b.steps and alike(a.per_image, b.per_image)
        return (a is None) == (b is None) and (a is None or np.array_equal(np.asarray(a), np.asarray(b)))

    return all(alike(getattr(first, f.name), getattr(second, f.name)) for f in dataclasses.fields(Predictions))


def judged(saved: Predictions, **terms: Any) -> Certificate:
    return certify_answers(**saved.arguments(), **terms)


@pytest.mark.parametrize("logits", [True, False])
def test_round_trip(tmp_path: Path, logits: bool) -> None:
    saved = predictions(logits=logits)
    saved.save(tmp_path / "predictions.npz")
    loaded = Predictions.load(tmp_path / "predictions.npz")
    assert same(saved, loaded)
    assert saved.digest() == loaded.digest()
    assert [file.name for file in tmp_path.iterdir()] == ["predictions.npz"]


names = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0/"), min_size=1, max_size=12)


@given(paths=st.lists(names, min_size=1, max_size=8), rungs=st.dictionaries(names, st.integers(0, 2), max_size=3))
@settings(deadline=None, derandomize=True)
def test_round_trip_of_any_names(
    tmp_path_factory: pytest.TempPathFactory, paths: list[str], rungs: dict[str, int]
) -> None:
    n, file = len(paths), tmp_path_factory.mktemp("p") / "p.npz"
    labels = np.zeros(n, dtype=int)
    between = {name: np.full(n, value) for name, value in rungs.items()}
    told = models(**{"reference": labels, **between, "deployed": labels})
    saved = Predictions("classification", labels, told, tuple(paths), ("0" * 64,) * n, CLASSES)
    saved.save(file)
    assert same(saved, Predictions.load(file))


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        predictions(seed=seed).save(tmp_path / name)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c
    with zipfile.ZipFile(tmp_path / "a") as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_numpy_alone_can_read_it(tmp_path: Path) -> None:
    saved = predictions()
    saved.save(tmp_path / "p.npz")
    with np.load(tmp_path / "p.npz", allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["labels"], saved.labels)
        np.testing.assert_array_equal(archive["deployed"], saved.models["deployed"]["class"])
        assert tuple(archive["paths"]) == saved.paths
        assert archive["deployed_logits"].dtype == np.float16


def test_any_flipped_byte_is_refused(tmp_path: Path) -> None:
    predictions(12).save(tmp_path / "p.npz")
    whole = (tmp_path / "p.npz").read_bytes()
    for position in range(0, len(whole), 23):
        (tmp_path / "p.npz").write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(CertifyError, match="were altered or are not whole"):
            Predictions.load(tmp_path / "p.npz")


@pytest.mark.parametrize("kept", [0, 1, 70, 500, -1])
def test_truncated_files_are_refused(tmp_path: Path, kept: int) -> None:
    predictions().save(tmp_path / "p.npz")
    (tmp_path / "p.npz").write_bytes((tmp_path / "p.npz").read_bytes()[:kept])
    with pytest.raises(CertifyError, match="were altered or are not whole: run edgetl verify with --data"):
        Predictions.load(tmp_path / "p.npz")


def resealed(arrays: dict[str, Any]) -> bytes:
    """An archive with a correct seal, as someone who knows the format could make."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.lib.format.write_array(content, array)
            archive.writestr(f"{name}.npy", content.getvalue())
        archive.comment = b"sha256:" + b"0" * 64
    body = stream.getvalue()[:-64]
    return body + hashlib.sha256(body).hexdigest().encode()


@pytest.mark.parametrize(
    "change",
    [
        {"labels": None},
        {"labels": np.array([0, 1])},
        {"deployed": np.array([0.5] * 30)},
        {"sha256": np.zeros((29, 32), dtype=np.uint8)},
        {"paths": np.array([object()] * 30, dtype=object)},
        {"paths": np.array(["/etc/passwd"] * 30)},
        {"reference_logits": np.zeros((30, 2), dtype=np.float16)},
        {"rung0": None},
        {"task": np.array("detection")},
        {"task": np.array("multi-label")},
        {"task": np.array([1, 2])},
        {"rungs": np.array(5)},
    ],
)
def test_well_sealed_nonsense_is_refused_too(tmp_path: Path, change: dict[str, Any]) -> None:
    predictions().save(tmp_path / "good.npz")
    with np.load(tmp_path / "good.npz") as archive:
        arrays = {**{name: archive[name] for name in archive.files}, **change}
    (tmp_path / "bad.npz").write_bytes(resealed({k: v for k, v in arrays.items() if v is not None}))
    with pytest.raises(CertifyError):
        Predictions.load(tmp_path / "bad.npz")


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(CertifyError, match=r"cannot read .*none\.npz"):
        Predictions.load(tmp_path / "none.npz")
    np.savez(tmp_path / "foreign.npz", a=np.arange(3))
    with pytest.raises(CertifyError, match="altered or are not whole"):
        Predictions.load(tmp_path / "foreign.npz")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgetlError, match="cannot write"):
        predictions().save(tmp_path / "file" / "p.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": models(reference=[0] * 30, deployed=[0])}, "(labels 30, reference 30, deployed 1)"),
        ({"models": models(reference=[0] * 30)}, "nothing to compare"),
        ({"task": "detection"}, "unknown task 'detection'"),
        ({"labels": np.full(30, 3)}, "labels holds class 3, but there are only 3 class names"),
        (
            {"models": models(reference=[0] * 30, between=[9] * 30, deployed=[0] * 30)},
            "between holds class 9, but there are only 3 class names",
        ),
        ({"paths": ("a.jpg",)}, "30 labels, 1 paths and 30 hashes do not match"),
        ({"paths": ("/home/me/a.jpg",) * 30}, "the path of a sample is absolute"),
        ({"sha256": ("xyz",) * 30}, "not a SHA-256 of 64 hexadecimal digits"),
        ({"reference_logits": np.zeros((30, 4))}, "reference_logits has the shape (30, 4) instead of (30, 3)"),
        ({"deployed_logits": np.full((30, 3), 1e6)}, "deployed_logits holds NaN or numbers beyond"),
        ({"deployed_logits": np.full((30, 3), np.nan)}, "deployed_logits holds NaN or numbers beyond"),
    ],
)
def test_what_cannot_be_predictions(change: dict[str, Any], message: str) -> None:
    values = {f.name: getattr(predictions(), f.name) for f in dataclasses.fields(Predictions)}
    with pytest.raises(EdgetlError) as caught:
        Predictions(**{**values, **change})
    assert message in str(caught.value)


def from_logits(
    labels: Any = (0, 1, 2) * 3, paths: Any = None, classes: Any = CLASSES, baseline: Any = None, **logits: Any
) -> Predictions:
    rng, n = np.random.default_rng(1), len(labels)
    given = {name: rng.normal(size=(9, 3)).astype(np.float32) for name in ("reference", "deployed")} | logits
    between = {name: values for name, values in given.items() if name not in ("reference", "deployed")}
    return Predictions.from_outputs(
        TASKS["classification"],
        labels=labels,
        outputs={
            name: {"logits": values}
            for name, values in {"reference": given["reference"], **between, "deployed": given["deployed"]}.items()
        },
        paths=paths or [f"{i}.png" for i in range(n)],
        sha256=["f" * 64] * n,
        classes=classes,
        baseline=baseline and (baseline[0], {"logits": baseline[1]}),
    )


def test_predictions_from_logits() -> None:
    logits = np.random.default_rng(2).normal(size=(9, 3)).astype(np.float32)
    made = from_logits(deployed=logits, float=-logits)
    np.testing.assert_array_equal(made.models["deployed"]["class"], logits.argmax(axis=1))
    np.testing.assert_array_equal(made.models["float"]["class"], logits.argmin(axis=1))
    assert list(made.models) == ["reference", "float", "deployed"]
    assert made.deployed_logits is not None
    np.testing.assert_allclose(made.deployed_logits, logits, rtol=1e-3)
    assert made.class_names == CLASSES


def test_logits_beyond_float16_are_limited_not_lost() -> None:
    made = from_logits(deployed=np.array([[1e9, 0, -1e9]] * 9))
    assert made.deployed_logits is not None
    np.testing.assert_array_equal(made.deployed_logits[0], [65504, 0, -65504])


def test_very_many_logits_are_not_kept() -> None:
    names = tuple(map(str, range(2000)))
    logits = np.broadcast_to(np.arange(2000, dtype=np.float16), (4001, 2000))
    made = from_logits(labels=np.zeros(4001, dtype=int), reference=logits, deployed=logits, classes=names)
    assert made.reference_logits is None
    assert set(made.models["deployed"]["class"]) == {1999}


def test_broken_logits_are_refused() -> None:
    broken = np.zeros((9, 3))
    broken[[2, 5]] = np.nan
    with pytest.raises(CertifyError, match="the logits of deployed are NaN for 2 of 9 samples"):
        from_logits(deployed=broken)
    with pytest.raises(CertifyError, match=r"the logits of float have the shape \(9, 2\) instead of \(9, 3\)"):
        from_logits(float=np.zeros((9, 2)))


def test_lost_and_gained_are_the_flips_of_the_certificate() -> None:
    saved = predictions(200)
    certificate = judged(saved)
    assert certificate.flips == {"lost": len(saved.lost), "gained": len(saved.gained)}
    assert np.all(saved.models["reference"]["class"][saved.lost] == saved.labels[saved.lost])
    assert np.all(saved.models["deployed"]["class"][saved.gained] == saved.labels[saved.gained])


def test_the_arrays_cannot_be_changed_in_place() -> None:
    saved = predictions()
    with pytest.raises(ValueError, match="read-only"):
        saved.labels[0] = 1


def test_fifty_thousand_rows_judged_again_from_the_file(tmp_path: Path) -> None:
    rng, n = np.random.default_rng(0), 50_000
    labels = rng.integers(0, 10, n)
    reference = np.where(rng.random(n) < 0.9, labels, (labels + 1) % 10)
    deployed = np.where(rng.random(n) < 0.99, reference, labels)
    hashes = tuple(f"{value:064x}" for value in rng.integers(0, 2**62, n).tolist())
    paths = tuple(f"class-{label}/{i:06d}.jpg" for i, label in enumerate(labels))
    told = models(reference=reference, deployed=deployed)
    Predictions("classification", labels, told, paths, hashes, tuple("0123456789")).save(tmp_path / "p.npz")
    again = judged(Predictions.load(tmp_path / "p.npz"), margin=0.005)
    assert (again.verdict, again.n) == ("pass", n)
    # 32 bytes of hash for each image cannot be compressed; all the rest should be small.
    assert (tmp_path / "p.npz").stat().st_size < 50 * n


# --- judging again


def with_everything(n: int = 400, seed: int = 3) -> Predictions:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    reference = 2 * np.eye(3)[labels] + rng.normal(size=(n, 3))
    return from_logits(
        labels=labels, reference=reference, deployed=reference + 0.2 * rng.normal(size=(n, 3)),
        float=reference + 1e-4, int8=reference + 0.1 * rng.normal(size=(n, 3)),
        baseline=("scratch", rng.normal(size=(n, 3))),
    )  # fmt: skip


def test_every_figure_comes_again_without_inference(tmp_path: Path) -> None:
    saved = with_everything()
    saved.save(tmp_path / "p.npz")
    loaded = Predictions.load(tmp_path / "p.npz")
    first, again = (judged(made, margin=0.02) for made in (saved, loaded))
    assert first.to_json() == again.to_json()
    assert saved.digest() == loaded.digest()
    assert first.probabilities is not None
    assert first.transfer_gain is not None
    assert all(rung.kl is not None for rung in first.ladder[1:])


def test_files_from_before_tasks_baselines_and_evidence_still_load(tmp_path: Path) -> None:
    with_everything().save(tmp_path / "new.npz")
    with np.load(tmp_path / "new.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    for name in ("task", "baseline", "baseline_kind", "steps", "distances", "per_image"):
        del arrays[name]
    (tmp_path / "old.npz").write_bytes(resealed(arrays))
    old = Predictions.load(tmp_path / "old.npz")
    assert (old.baseline, old.evidence) == (None, None)
    certificate = judged(old)
    assert certificate.transfer_gain is None
    assert certificate.ladder[1].kl is None
    # Of the float16 logits that were kept, which are less exact.
    expected = judged(with_everything()).probabilities
    assert certificate.probabilities is not None
    assert expected is not None
    assert certificate.probabilities.kl == pytest.approx(expected.kl, rel=0.01)


def test_probabilities_survive_where_logits_are_not_kept(tmp_path: Path) -> None:
    n, names = 4001, tuple(map(str, range(2000)))
    logits = np.random.default_rng(0).normal(size=(n, 2000)).astype(np.float32)
    labels = np.zeros(n, dtype=int)
    made = from_logits(labels=labels, reference=logits, deployed=logits[:, ::-1], classes=names, paths=["a"] * n)
    made.save(tmp_path / "p.npz")
    loaded = Predictions.load(tmp_path / "p.npz")
    assert loaded.reference_logits is None
    assert loaded.evidence is not None
    assert loaded.evidence.per_image is not None
    assert loaded.evidence.per_image.shape == (n, 7)
    assert (tmp_path / "p.npz").stat().st_size < 50 * n


@pytest.mark.parametrize(
    "change",
    [
        {"baseline": np.full(400, 3)},
        {"baseline": np.zeros(3, dtype=int)},
        {"baseline_kind": np.array("knn")},
        {"baseline_kind": None},
        {"per_image": np.zeros((399, 7), dtype=np.float32)},
        {"per_image": np.zeros((400, 2), dtype=np.float32)},
        {"distances": np.zeros((1, 2))},
        {"distances": np.full((3, 2), np.nan)},
    ],
)
def test_well_sealed_nonsense_in_what_is_new_is_refused_too(tmp_path: Path, change: dict[str, Any]) -> None:
    with_everything().save(tmp_path / "good.npz")
    with np.load(tmp_path / "good.npz") as archive:
        arrays = {**{name: archive[name] for name in archive.files}, **change}
    (tmp_path / "bad.npz").write_bytes(resealed({k: v for k, v in arrays.items() if v is not None}))
    with pytest.raises(CertifyError):
        Predictions.load(tmp_path / "bad.npz")
