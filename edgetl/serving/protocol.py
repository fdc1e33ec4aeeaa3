"""The Open Inference Protocol (KServe v2) over HTTP with its binary tensor extension: bytes to arrays, arrays to bytes.

https://github.com/kserve/open-inference-protocol, and ``extension_binary_data`` of Triton's documentation: the JSON
object comes first, as many bytes as the header Inference-Header-Content-Length says; behind it stand the tensors, in
order, as little-endian numbers.

Whoever asks may mean harm: names, types, shapes and sizes are compared with what the model takes before an array of
theirs is made.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import EdgetlError
from edgetl.base.storage import parse_json
from edgetl.core.tensors import Arrays, TensorSpec

#: numpy's name of a type → the protocol's
DATATYPES: Mapping[str, str] = {
    "bool": "BOOL",
    **{f"{kind}{bits}": f"{kind}{bits}".upper() for kind in ("uint", "int") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"FP{bits}" for bits in (16, 32, 64)},
}
#: Bytes of JSON in a request: as Python's objects it takes twenty times as much.
MOST_JSON = 1 << 22
_BINARY = "send it in binary (Inference-Header-Content-Length)"
Array = npt.NDArray[Any]


class RequestError(EdgetlError):
    """What is wrong with a request, for whoever made it.

    Args:
        what, remedy: as of every error.
        status: of HTTP.
    """

    def __init__(self, what: str, remedy: str = "", status: int = 400) -> None:
        self.status = status
        super().__init__(what, remedy)


@dataclass(frozen=True)
class Signature:
    """What a model takes and gives.

    Attributes:
        inputs, outputs: of the network, by name, dtype and shape.
        most_samples: in one request.
        most_open: the largest size of an axis that the network leaves open, other than the samples'.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    most_samples: int
    most_open: int


@dataclass(frozen=True)
class InferenceRequest:
    """What somebody asks.

    Attributes:
        feeds: arrays for the network, (n, …).
        outputs: names of the outputs that are wanted, in order, and whether each is wanted as bytes.
        id: to be repeated in the answer; None where there is none.
    """

    feeds: Arrays
    outputs: Mapping[str, bool]
    id: str | None


def described(specs: Sequence[TensorSpec]) -> list[dict[str, Any]]:
    """Tensors, as a model's metadata name them: sizes that are open are -1."""
    return [
        {
            "name": spec.name,
            "datatype": DATATYPES[spec.dtype],
            "shape": [-1 if size is None else size for size in spec.shape],
        }
        for spec in specs
    ]


def read_request(body: bytes, header_length: str | None, takes: Signature) -> InferenceRequest:
    """Read a request.

    Args:
        body: all of it.
        header_length: the header Inference-Header-Content-Length, if there is one.
        takes: what the model takes.

    Raises:
        RequestError: it is malformed, too large, or not what the model takes.
    """
    size = len(body) if header_length is None else _length(header_length, len(body))
    if size > MOST_JSON:
        raise RequestError(f"the request holds {size} bytes of JSON; {MOST_JSON} are the most", _BINARY, 413)
    try:
        record = parse_json(body[:size])
    except ValueError as error:
        raise RequestError(f"the request is no JSON ({error})", "see the Open Inference Protocol") from error
    if not isinstance(record, dict):
        raise RequestError("the request is no JSON object", "see the Open Inference Protocol")
    name = record.get("id")
    if name is not None and not isinstance(name, str):
        raise RequestError("the request's id is no text", "leave it out")
    feeds = _feeds(_objects(record, "inputs"), memoryview(body)[size:], takes)
    return InferenceRequest(feeds, _wanted(record, takes), name)


def _length(header: str, most: int) -> int:
    digits = header.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) < 16 and int(digits) <= most):
        what = f"Inference-Header-Content-Length is {header!a:.40}, and the body has {most} bytes"
        raise RequestError(what, "give the bytes of its JSON")
    return int(digits)


def _objects(record: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """A list of tensors of a request, each with a name of its own."""
    found = record.get(name, [])
    if not isinstance(found, list) or not all(isinstance(x, dict) and isinstance(x.get("name"), str) for x in found):
        raise RequestError(f"the request's {name} are no list of objects with a name", "give name, shape and datatype")
    names = [x["name"] for x in found]
    if len(set(names)) < len(names):
        raise RequestError(f"the request names one of its {name} twice", "name each once")
    return found


def _parameters(record: Mapping[str, Any]) -> dict[str, Any]:
    found = record.get("parameters", {})
    if not isinstance(found, dict):
        raise RequestError("the request's parameters are no object", "leave them out")
    for name in ("shared_memory_region", "classification"):
        if found.get(name):
            raise RequestError(f"the parameter {name} is not supported", "leave it out")
    return found


def _flag(record: Mapping[str, Any], name: str, otherwise: bool) -> bool:
    found = _parameters(record).get(name, otherwise)
    if not isinstance(found, bool):
        raise RequestError(f"the parameter {name} is neither true nor false", "correct it")
    return found


def _wanted(record: Mapping[str, Any], takes: Signature) -> dict[str, bool]:
    binary = _flag(record, "binary_data_output", otherwise=False)
    known = [spec.name for spec in takes.outputs]
    wanted = _objects(record, "outputs")
    for entry in wanted:
        if entry["name"] not in known:
            raise RequestError(f"the model has no output {entry['name']!a:.100}", f"it has {', '.join(known)}")
    return {x["name"]: _flag(x, "binary_data", binary) for x in wanted} or dict.fromkeys(known, binary)


def _feeds(entries: Sequence[Mapping[str, Any]], rest: memoryview, takes: Signature) -> dict[str, Array]:
    named = {entry["name"]: entry for entry in entries}
    specs = {spec.name: spec for spec in takes.inputs}
    if set(named) != set(specs):
        given = ", ".join(f"{name!a:.100}" for name in list(named)[:4]) or "nothing"
        raise RequestError(f"the request gives {given}; the model takes {', '.join(specs)}", "name its inputs so")
    shapes = {name: _shape(entry, specs[name], takes) for name, entry in named.items()}
    if len({shape[0] for shape in shapes.values()}) > 1:
        raise RequestError("the inputs have different numbers of samples", "give as many of each")
    _same_places(shapes, specs)
    feeds, start = {}, 0
    for name, entry in named.items():
        dtype, count = np.dtype(specs[name].dtype), math.prod(shapes[name])
        size = _binary_size(entry, count * dtype.itemsize, len(rest) - start)
        values = _from_json(entry, count, dtype) if size is None else _from_bytes(rest[start : start + size], dtype)
        start += size or 0
        if dtype.kind == "f" and not np.isfinite(values).all():
            raise RequestError(f"the input {name} holds what is no finite number", "remove it")
        feeds[name] = values.reshape(shapes[name])
    if start != len(rest):
        raise RequestError(f"the body has {len(rest) - start} bytes that belong to no input", "send none")
    return {name: feeds[name] for name in specs}


def _shape(entry: Mapping[str, Any], spec: TensorSpec, takes: Signature) -> tuple[int, ...]:
    """An input's shape, which the model takes."""
    wanted = described([spec])[0]
    datatype, given = entry.get("datatype"), entry.get("shape")
    shape: list[Any] = given if isinstance(given, list) else []
    # bool is a kind of int.
    fits = datatype == wanted["datatype"] and all(type(size) is int for size in shape)
    if not (fits and TensorSpec(spec.name, spec.dtype, (None, *spec.shape[1:])).fits(shape)):
        what = f"the input {spec.name} takes {wanted['datatype']} {wanted['shape']}"
        raise RequestError(f"{what}, not {datatype!a:.40} {given!a:.80}", "prepare it so")
    if not 1 <= shape[0] <= takes.most_samples:
        what = f"the input {spec.name} has {shape[0]!a:.40} samples; one request takes 1 to {takes.most_samples}"
        raise RequestError(what, "send several requests")
    for size, found in zip(spec.shape[1:], shape[1:], strict=True):
        if size is None and not 1 <= found <= takes.most_open:
            what = f"the input {spec.name} has an axis of {found!a:.40}; 1 to {takes.most_open} are taken"
            raise RequestError(what, "cut it")
    return tuple(shape)


def _same_places(shapes: Mapping[str, tuple[int, ...]], specs: Mapping[str, TensorSpec]) -> None:
    """Axes that the network leaves open are the same places in each of its inputs: tokens, and which of them count."""
    places = {shape[1:] for name, shape in shapes.items() if None in specs[name].shape[1:]}
    if len(places) > 1:
        raise RequestError("the inputs have different numbers of places", "pad them to one length")


def _binary_size(entry: Mapping[str, Any], wanted: int, left: int) -> int | None:
    """Bytes that an input has behind the JSON; None where it stands there."""
    name, size = entry["name"], _parameters(entry).get("binary_data_size")
    if size is None:
        return None
    if type(size) is not int or size != wanted or "data" in entry:
        what = f"the input {name} has binary_data_size {size!a:.40}, and its shape takes {wanted}"
        raise RequestError(what, "give as many bytes, and no data in JSON")
    if size > left:
        raise RequestError(f"the body ends within the input {name}", "send all of its bytes")
    return wanted


def _from_bytes(content: memoryview, dtype: np.dtype[Any]) -> Array:
    # Copied, as it may begin anywhere: kernels want numbers where the processor does.
    return np.frombuffer(content, dtype.newbyteorder("<")).astype(dtype)


def _from_json(entry: Mapping[str, Any], count: int, dtype: np.dtype[Any]) -> Array:
    name = entry["name"]
    held = entry.get("data")
    if not isinstance(held, list):
        raise RequestError(f"the input {name} has neither data nor binary_data_size", "give one of them")
    flat = list(_numbers(held, count, name))
    if len(flat) != count:
        raise RequestError(f"the input {name} has {len(flat)} numbers, and its shape takes {count}", "give as many")
    kinds = {"b": (bool,), "f": (int, float)}.get(dtype.kind, (int,))
    if not set(map(type, flat)) <= set(kinds):
        raise RequestError(f"the input {name} holds what is no {DATATYPES[dtype.name]}", "correct it")
    if dtype.kind in "iu" and not np.iinfo(dtype).min <= min(flat) <= max(flat) <= np.iinfo(dtype).max:
        raise RequestError(f"the input {name} holds what is no {DATATYPES[dtype.name]}", "correct it")
    try:
        with np.errstate(over="ignore"):
            return np.array(flat, dtype)
    except OverflowError as error:
        raise RequestError(f"the input {name} holds what is no {DATATYPES[dtype.name]}", "correct it") from error


def _numbers(held: list[Any], most: int, name: str) -> Iterator[Any]:
    """What lists within lists hold, in order; they may be flat."""
    stack, seen = [iter(held)], 0
    while stack:
        for value in stack[-1]:
            if isinstance(value, list):
                stack.append(iter(value))
                break
            seen += 1
            if seen > most:
                raise RequestError(f"the input {name} has more numbers than its shape takes: {most}", "give as many")
            yield value
        else:
            stack.pop()


def write_answer(request: InferenceRequest, outputs: Arrays, model: str, version: str) -> tuple[bytes, int | None]:
    """The body of an answer, and its Inference-Header-Content-Length; None where all of it is JSON.

    Raises:
        RequestError: an output is no finite number, which JSON cannot tell.
    """
    entries, parts = [], []
    for name, binary in request.outputs.items():
        values = outputs[name]
        entry: dict[str, Any] = {"name": name, "datatype": DATATYPES[values.dtype.name], "shape": list(values.shape)}
        if binary:
            parts.append(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
            entry["parameters"] = {"binary_data_size": len(parts[-1])}
        else:
            entry["data"] = values.ravel().tolist()
        entries.append(entry)
    record = {"model_name": model, "model_version": version, "outputs": entries}
    try:
        head = json.dumps(record if request.id is None else {**record, "id": request.id}, allow_nan=False).encode()
    except ValueError as error:
        raise RequestError("the model answers with what is no finite number", "ask for it in binary") from error
    return b"".join((head, *parts)), len(head) if parts else None
