"""The Open Inference Protocol: NVIDIA's own client on a real server, and requests that no client makes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as draws

import edgetl
from edgetl.core.bundle import Bundle
from edgetl.core.tensors import TensorSpec
from edgetl.serving.protocol import RequestError, Signature, read_request
from tests.runtime import tiny
from tests.serving.conftest import answers
from tests.serving.process import Served

LENGTH = "Inference-Header-Content-Length"
TAKES = Signature((TensorSpec("x", "float32", (None, 3)),), (TensorSpec("y", "float32", (None, 2)),), 4, 0)
IDS = Signature(
    tuple(TensorSpec(name, "int64", (None, None)) for name in ("ids", "mask")),
    TAKES.outputs,
    most_samples=4,
    most_open=8,
)


@pytest.fixture(name="cli")
def command_line(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """:func:`tests.conftest.edgetl`, whose name is the package's."""
    found: Callable[..., Any] = request.getfixturevalue("edgetl")
    return found


@pytest.fixture(scope="session")
def client(served: Served) -> Any:
    library = pytest.importorskip("tritonclient.http", reason="tritonclient (edgetl[dev]) is the client")
    return library.InferenceServerClient(f"{served.host}:{served.port}")


def given(name: str, values: np.ndarray, datatype: str, binary: bool = True) -> Any:
    import tritonclient.http as library

    made = library.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def test_tritonclient_sees_what_is_served(client: Any, bundles: dict[str, Bundle]) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert all(client.is_model_ready(name) for name in bundles)
    assert client.is_model_ready("pictures", bundles["pictures"].digest)
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    found = client.get_model_metadata("pictures")
    assert found == {
        "name": "pictures",
        "versions": [bundles["pictures"].digest],
        "platform": "onnxruntime",
        "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, 32, 24, 3]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 4]}],
    }


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_gets_the_networks_own_answers(client: Any, bundles: dict[str, Bundle], binary: bool) -> None:
    import tritonclient.http as library

    images = tiny.pictures(5, seed=1)
    expected = answers(bundles["pictures"].artifact().path, images)
    asked = given("image", images, "UINT8", binary)
    plain = client.infer("pictures", [asked])
    np.testing.assert_allclose(plain.as_numpy("logits"), expected, rtol=1e-5)
    assert plain.get_response()["model_version"] == bundles["pictures"].digest
    wanted = [library.InferRequestedOutput("logits", binary_data=binary)]
    named = client.infer(
        "pictures", [asked], outputs=wanted, request_id="seven", model_version=plain.get_response()["model_version"]
    )
    np.testing.assert_array_equal(named.as_numpy("logits"), plain.as_numpy("logits"))
    assert named.get_response()["id"] == "seven"
    later = client.async_infer("pictures", [asked]).get_result()
    np.testing.assert_array_equal(later.as_numpy("logits"), plain.as_numpy("logits"))


def test_a_fixed_batch_is_filled_up_and_not_exceeded(client: Any, bundles: dict[str, Bundle]) -> None:
    from tritonclient.utils import InferenceServerException

    assert client.get_model_metadata("pairs")["inputs"][0]["shape"] == [2, 32, 24, 3]
    images = tiny.pictures(3, seed=2)
    expected = answers(bundles["pictures"].artifact().path, images)
    for count in (1, 2):
        found = client.infer("pairs", [given("image", images[:count], "UINT8")]).as_numpy("logits")
        np.testing.assert_allclose(found, expected[:count], rtol=1e-5)
    with pytest.raises(InferenceServerException, match="takes 1 to 2"):
        client.infer("pairs", [given("image", images, "UINT8")])


def test_a_runtime_whose_session_takes_one_thread_at_a_time(served: Served, bundles: dict[str, Bundle]) -> None:
    images = tiny.pictures(16, seed=4)
    expected = answers(bundles["pictures"].artifact().path, images)

    def asked(row: int) -> Any:
        entry = {"name": "image", "datatype": "UINT8", "shape": [1, 32, 24, 3], "data": images[row].ravel().tolist()}
        found = served.json("POST", "/v2/models/openvino/infer", json.dumps({"inputs": [entry]}).encode())
        return found["outputs"][0]["data"]

    # Four at once are what its queue has room for.
    with ThreadPoolExecutor(4) as pool:
        np.testing.assert_allclose(list(pool.map(asked, range(16))), expected, rtol=1e-3, atol=1e-4)


def test_answers_that_are_no_numbers(client: Any, served: Served) -> None:
    from tritonclient.utils import InferenceServerException

    left, right = np.full((1, 4), 3e38, np.float32), np.zeros((1, 3), np.float32)
    entries = [given("left", left, "FP32"), given("right", right, "FP32")]
    assert np.isinf(client.infer("arrays", entries).as_numpy("logits")[0, 0])
    import tritonclient.http as library

    with pytest.raises(InferenceServerException, match="ask for it in binary"):
        client.infer("arrays", entries, outputs=[library.InferRequestedOutput("logits", binary_data=False)])
    packed = io.BytesIO()
    np.savez(packed, left=left[0], right=right[0])
    status, _, told = served.ask("POST", "/v2/models/arrays/predict", packed.getvalue())
    assert (status, "no finite number" in told.decode()) == (400, True), told


def test_several_inputs_and_open_axes(client: Any) -> None:
    left, right = np.full((2, 4), 0.5, np.float32), np.array([[0, 0, 0], [1, 0, 0]], np.float32)
    found = client.infer("arrays", [given("right", right, "FP32"), given("left", left, "FP32", binary=False)])
    np.testing.assert_allclose(found.as_numpy("logits"), [[2, -2, 0], [4, -4, 0]])
    ids = np.array([[6, 2, 4]], np.int64)
    texts = client.infer("texts", [given("input_ids", ids, "INT64"), given("attention_mask", ids * 0 + 1, "INT64")])
    np.testing.assert_allclose(texts.as_numpy("logits")[0], tiny.text_scores(ids[0]), rtol=1e-5)


def test_tritonclient_is_told_what_is_wrong(client: Any) -> None:
    from tritonclient.utils import InferenceServerException

    wrong: dict[str, Callable[[], Any]] = {
        "there is no model 'birds'": lambda: client.infer("birds", [given("image", tiny.pictures(1), "UINT8")]),
        "the version '1'": lambda: client.infer("pictures", [given("image", tiny.pictures(1), "UINT8")], "1"),
        "takes UINT8": lambda: client.infer("pictures", [given("image", tiny.pictures(1) * 1.0, "FP64")]),
        "the model takes image": lambda: client.infer("pictures", [given("picture", tiny.pictures(1), "UINT8")]),
        "1 to 8": lambda: client.infer("pictures", [given("image", tiny.pictures(9), "UINT8")]),
        "8 are taken": lambda: client.infer(
            "texts",
            [given(name, np.ones((1, 9), np.int64), "INT64") for name in ("input_ids", "attention_mask")],
        ),
        "no answer to these numbers": lambda: client.infer(
            "texts",
            [given(name, np.full((1, 3), 99, np.int64), "INT64") for name in ("input_ids", "attention_mask")],
        ),
        "no finite number": lambda: client.infer(
            "arrays",
            [
                given("left", np.full((1, 4), np.nan, np.float32), "FP32"),
                given("right", np.zeros((1, 3), np.float32), "FP32"),
            ],
        ),
    }
    for said, ask in wrong.items():
        with pytest.raises(InferenceServerException) as caught:
            ask()
        assert said in caught.value.message(), said
        assert caught.value.status() in ("400", "404")
    assert client.is_server_ready(), "what a request does wrong is no failure of the model's"


def request(**changes: Any) -> dict[str, Any]:
    """What TAKES takes, but for some fields of its one input; None leaves a field out."""
    entry = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2.5, 3], **changes}
    return {"inputs": [{name: value for name, value in entry.items() if value is not None}]}


MALFORMED: dict[str, Any] = {
    "no JSON": b"{",
    "not UTF-8": b"\xff\xfe",
    "no object": [1],
    "nested beyond reading": b"[" * 100_000,
    "not finite": b'{"inputs": [NaN]}',
    "no inputs": {},
    "inputs no list": {"inputs": {"x": 1}},
    "inputs no objects": {"inputs": ["x"]},
    "a name that is a number": request(name=1),
    "another name": request(name="z"),
    "named twice": {"inputs": request()["inputs"] * 2},
    "no type": request(datatype=None),
    "another type": request(datatype="FP64"),
    "a type that is a list": request(datatype=["FP32"]),
    "no shape": request(shape=None),
    "a shape that is a text": request(shape="1,3"),
    "too few axes": request(shape=[3]),
    "another size": request(shape=[1, 4]),
    "no samples": request(shape=[0, 3], data=[]),
    "less than no samples": request(shape=[-1, 3]),
    "sizes that are texts": request(shape=["1", "3"]),
    "sizes that are true": request(shape=[True, 3]),
    "sizes with a fraction": request(shape=[1.0, 3]),
    "more samples than allowed": request(shape=[5, 3], data=[0] * 15),
    "2**62 samples": request(shape=[1 << 62, 3]),
    "no data": request(data=None),
    "data that is a text": request(data="123"),
    "too few numbers": request(data=[1, 2]),
    "too many numbers": request(data=[1, 2, 3, 4]),
    "texts for numbers": request(data=["1", "2", "3"]),
    "null for a number": request(data=[1, None, 3]),
    "true for a number": request(data=[1, True, 3]),
    "an object for a number": request(data=[1, {}, 3]),
    "beyond float32": request(data=[1, 1e300, 3]),
    "beyond any float": request(data=[1, 10**400, 3]),
    "parameters that are a list": request(parameters=[1]),
    "bytes that are not there": request(data=None, parameters={"binary_data_size": 12}),
    "bytes of another number": request(data=None, parameters={"binary_data_size": 8}),
    "fewer bytes than none": request(data=None, parameters={"binary_data_size": -12}),
    "data and bytes": request(parameters={"binary_data_size": 12}),
    "memory that is shared": request(data=None, parameters={"shared_memory_region": "r"}),
    "an output that is none": {**request(), "outputs": [{"name": "z"}]},
    "outputs that are texts": {**request(), "outputs": ["y"]},
    "classes for outputs": {**request(), "outputs": [{"name": "y", "parameters": {"classification": 3}}]},
    "binary neither true nor false": {**request(), "parameters": {"binary_data_output": 1}},
    "an id that is a number": {**request(), "id": 3},
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_told_in_one_line(name: str) -> None:
    held = MALFORMED[name]
    with pytest.raises(RequestError) as caught:
        read_request(held if isinstance(held, bytes) else json.dumps(held).encode(), None, TAKES)
    assert caught.value.status == 400
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("length", ["", "-1", "1e1", "+3", "99999", "9" * 5000, "٣", "0x10", "3 3"])
def test_a_length_of_the_header_that_is_none(length: str) -> None:
    with pytest.raises(RequestError, match="Content-Length"):
        read_request(json.dumps(request()).encode(), length, TAKES)


def test_bytes_that_belong_to_nothing_and_places_that_differ() -> None:
    head = json.dumps(request()).encode()
    with pytest.raises(RequestError, match="2 bytes that belong to no input"):
        read_request(head + b"ab", str(len(head)), TAKES)
    entries = [
        {"name": name, "datatype": "INT64", "shape": [1, size], "data": [[1] * size]}
        for name, size in (("ids", 3), ("mask", 2))
    ]
    with pytest.raises(RequestError, match="different numbers of places"):
        read_request(json.dumps({"inputs": entries}).encode(), None, IDS)
    with pytest.raises(RequestError) as caught:
        read_request(b" " * (1 << 23), None, TAKES)
    assert caught.value.status == 413


def test_numbers_in_any_nesting_and_behind_the_json() -> None:
    for data in ([1, 2.5, 3], [[1, 2.5, 3]], [[[1], [2.5], [3]]]):
        np.testing.assert_array_equal(
            read_request(json.dumps(request(data=data)).encode(), None, TAKES).feeds["x"], [[1, 2.5, 3]]
        )
    head = json.dumps(request(data=None, parameters={"binary_data_size": 12})).encode()
    # An odd number of bytes before them: the array is made where the processor wants it.
    for pad in (b"", b" "):
        whole = head + pad + np.array([1, 2.5, 3], "<f4").tobytes()
        values = read_request(whole, str(len(head + pad)), TAKES).feeds["x"]
        assert values.flags.aligned
        np.testing.assert_array_equal(values, np.array([[1, 2.5, 3]], np.float32))


JSONS = draws.recursive(
    draws.none()
    | draws.booleans()
    | draws.integers(-5, 1 << 65)
    | draws.floats()
    | draws.sampled_from(["x", "FP32", "data", ""]),
    lambda inner: (
        draws.lists(inner, max_size=4)
        | draws.dictionaries(draws.sampled_from(["name", "shape", "data", "binary_data_size"]), inner)
    ),
    max_leaves=12,
)


@hypothesis.given(
    field=draws.sampled_from(["name", "datatype", "shape", "data", "parameters"]),
    value=JSONS,
    tail=draws.binary(max_size=16),
)
def test_whatever_stands_in_a_field_is_taken_or_refused(field: str, value: Any, tail: bytes) -> None:
    body = json.dumps(request(**{field: value})).encode()
    try:
        found = read_request(body + tail, str(len(body)), TAKES)
    except RequestError:
        return
    assert found.feeds["x"].shape[1] == 3
    assert np.isfinite(found.feeds["x"]).all()


def test_malformed_requests_leave_the_server_as_it_was(served: Served) -> None:
    path = "/v2/models/arrays/infer"
    for held in MALFORMED.values():
        status, headers, body = served.ask("POST", path, held if isinstance(held, bytes) else json.dumps(held).encode())
        assert (status, headers["content-type"]) == (400, "application/json")
        assert set(json.loads(body)) == {"error"}
    assert served.ask("POST", path, b"{}", {LENGTH: "99"})[0] == 400
    assert served.ask("GET", path)[0] == 405
    assert served.ask("POST", "/v2/models/%2e%2e%2fetc/infer", b"{}")[0] == 404
    assert served.ask("POST", path, b"{}", {"Content-Encoding": "gzip"})[0] == 415
    assert served.process.poll() is None
    assert served.json("GET", "/v2/health/ready") == {"ready": True}


def test_the_same_answer_as_predict(
    served: Served, bundles: dict[str, Bundle], photo: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    (tmp_path / "review.txt").write_text("a bad film\n")
    np.savez(tmp_path / "sample.npz", left=np.ones(4), right=np.zeros(3))
    files = {"pictures": photo, "texts": tmp_path / "review.txt", "arrays": tmp_path / "sample.npz"}
    for name, file in files.items():
        body, bundle = file.read_bytes(), bundles[name]
        (expected,) = edgetl.predict(bundle, [file], top=2)
        assert served.json("POST", f"/v2/models/{name}/predict?top=2", body) == expected.to_json()
        one = f"/v2/models/{name}/versions/{bundle.digest}/predict?top=2"
        assert served.json("POST", one, body) == expected.to_json()
    told = json.loads(cli("predict", bundles["pictures"].path, photo, "--json").stdout)
    (answer,) = told["predictions"]
    assert answer == {"file": str(photo), **served.json("POST", "/v2/models/pictures/predict", photo.read_bytes())}


def test_an_archive_that_unpacks_to_more_than_a_sample_has(served: Served) -> None:
    packed = io.BytesIO()
    np.savez_compressed(packed, left=np.ones(4), right=np.zeros(1 << 22))
    status, _, told = served.ask("POST", "/v2/models/arrays/predict", packed.getvalue())
    assert (status, "unpacks to more than" in told.decode()) == (400, True), told


def test_a_file_that_is_no_sample(served: Served) -> None:
    path = "/v2/models/pictures/predict"
    for body, said in ((b"GIF89a", "image"), (b"", "empty"), (b"%PDF-1.7", "a PDF document")):
        status, _, told = served.ask("POST", path, body)
        assert (status, said in told.decode()) == (400, True), told
    assert served.ask("POST", path, b"x", {"Content-Type": "multipart/form-data; boundary=b"})[0] == 415
    for top in ("0", "-1", "x", "99999", "١"):
        assert served.ask("POST", f"{path}?top={top.encode().hex() if not top.isascii() else top}", b"x")[0] == 400
