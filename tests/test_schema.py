"""Records are read with every value checked; a wrong one is named by its place in the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgetl.base.errors import BundleError
from edgetl.base.schema import Json, from_json, named, to_json


@dataclass(frozen=True)
class Leaf:
    share: float
    kind: Literal["int8", "fp32", 2]
    floating: bool = field(default=False, metadata=named("float"))

    def __post_init__(self) -> None:
        if self.share > 1:
            raise ValueError("a share above 1")


@dataclass(frozen=True)
class Tree:
    name: str
    count: int
    leaf: Leaf | None
    leaves: Mapping[str, Leaf]
    pairs: tuple[tuple[str, int], ...] = ()
    either: str | tuple[float, ...] = ""
    shown: Mapping[str, Json] = field(default_factory=dict)


LEAVES = st.builds(
    Leaf, st.floats(max_value=1, allow_infinity=False), st.sampled_from(("int8", "fp32", 2)), st.booleans()
).filter(lambda leaf: leaf.share == leaf.share)
NAMES = st.text(max_size=5)
SCALARS = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3)
TREES = st.builds(
    Tree,
    NAMES,
    st.integers(-(2**63) + 1, 2**63 - 1),
    st.none() | LEAVES,
    st.dictionaries(NAMES, LEAVES, max_size=3),
    st.lists(st.tuples(NAMES, st.integers(-9, 9)), max_size=3).map(tuple),
    NAMES | st.lists(st.integers(-9, 9) | st.floats(-9, 9), max_size=3).map(tuple),
    st.dictionaries(NAMES, st.recursive(SCALARS, st.lists, max_leaves=4), max_size=3),
)
WHOLE: Mapping[str, Any] = {
    "name": "a",
    "count": 3,
    "leaf": None,
    "leaves": {"x": {"share": 0.5, "kind": "int8", "float": True}},
}


@settings(deadline=None, derandomize=True)
@given(TREES)
def test_what_was_written_is_read_again(tree: Tree) -> None:
    written = json.loads(json.dumps(to_json(tree)))
    assert from_json(Tree, written, "file") == tree
    assert to_json(from_json(Tree, written, "file")) == written


def test_absent_fields_take_their_defaults_and_unknown_ones_are_left_out() -> None:
    tree = from_json(Tree, {**WHOLE, "later": 1}, "file")
    assert tree == Tree("a", 3, None, {"x": Leaf(0.5, "int8", True)})


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"name": 3}, "name is 3, not a string"),
        ({"count": True}, "count is true, not a whole number"),
        ({"count": 1.0}, "count is 1.0, not a whole number"),
        ({"count": 10**30}, "count is a number beyond all bounds"),
        ({"count": None}, "count is null, not a whole number"),
        ({"leaf": []}, "leaf is a list, not an object"),
        ({"leaf": {"share": 0.5}}, "leaf.kind is missing"),
        ({"leaf": {"share": float("nan"), "kind": 2}}, "leaf.share is a number beyond all bounds"),
        ({"leaf": {"share": 2, "kind": 2}}, "leaf is impossible (a share above 1)"),
        ({"leaf": {"share": 0.5, "kind": "fp16"}}, 'leaf.kind is "fp16", not one of "int8", "fp32", 2'),
        ({"leaf": {"share": 0.5, "kind": 2, "float": 1}}, "leaf.float is 1, not true or false"),
        ({"leaves": {"a.b": 7}}, "leaves.a.b is 7, not an object"),
        ({"leaves": {"\x1b[31m": 7}}, "leaves.'\\x1b[31m' is 7, not an object"),
        ({"pairs": [["a", 1], ["b"]]}, "pairs[1] has 1 entries, not 2"),
        ({"pairs": [["a", "b"]]}, 'pairs[0][1] is "b", not a whole number'),
        ({"either": [1, "b"]}, 'either[1] is "b", not a number'),
        ({"shown": "z" * 99}, f'shown is "{"z" * 56}..., not an object'),
    ],
)
def test_a_wrong_value_is_named(change: Mapping[str, Any], what: str) -> None:
    with pytest.raises(BundleError) as caught:
        from_json(Tree, {**WHOLE, **change}, "tree.json", BundleError, "make a new one")
    assert str(caught.value) == f"tree.json: {what}: make a new one"


@pytest.mark.parametrize("value", [None, [], "text", 3, 0.5, True])
def test_what_is_no_object_is_no_record(value: Any) -> None:
    with pytest.raises(BundleError, match="not an object"):
        from_json(Tree, value, "tree.json", BundleError)
