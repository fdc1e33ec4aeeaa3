"""From a text to a network's input: token ids by the ``tokenizers`` library, as its ``tokenizer.json`` says.

Neither torch nor transformers: a device needs ``tokenizers`` alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from edgetl.base.errors import DataError
from edgetl.base.extras import require
from edgetl.base.storage import sha256_bytes, sha256_json
from edgetl.core.tensors import TensorSpec
from edgetl.inputs.base import InputKind

TOKENIZER = "tokenizer.json"
#: Largest text, bytes of UTF-8: more is no sentence, and takes seconds to cut into tokens that are then thrown away.
MOST_BYTES = 1 << 20
#: What padding is called by the tokenizers in use, where they do not say which token they pad with.
_PADS = ("[PAD]", "<pad>", "<|pad|>", "<|endoftext|>", "</s>")


@dataclass(frozen=True)
class Text:
    """What happens to a text before the network sees it.

    White space at its ends is no part of a text. What else is done to it (lower case, accents, words and their
    pieces) the tokenizer decides; its own settings of padding and truncation are not used.

    Attributes:
        tokenizer: content of a ``tokenizer.json`` of the ``tokenizers`` library.
        length: most tokens, the special ones at either end among them; a longer text is cut.
        pad: token id that fills the shorter texts of a batch; the network is told by ``attention_mask``.
    """

    kind: ClassVar[str] = "text"

    tokenizer: bytes = field(repr=False)
    length: int
    pad: int

    def __post_init__(self) -> None:
        if self.length < 3:
            raise DataError(f"a length of {self.length} tokens leaves no room for a text", "use 3 or more")
        if not 0 <= self.pad < self._encoder.get_vocab_size():
            raise DataError(f"the padding {self.pad} is no token of the tokenizer", "give the id of its padding token")

    @classmethod
    def of(cls, tokenizer: Path, length: int = 128) -> Text:
        """The definition for a ``tokenizer.json``, padded with the token that it names.

        Raises:
            DataError: there is no such file, it is no tokenizer, or it has no token to pad with.
            MissingExtraError: ``tokenizers`` is not installed.
        """
        try:
            content = tokenizer.read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {tokenizer} ({error.strerror or error})", "give a tokenizer.json") from error
        try:
            encoder = _encoder(content, length)
        except DataError as error:
            raise DataError(f"{tokenizer}: {error.what}", error.remedy) from error
        own = _own_padding(content)
        named = own if own is not None else next(filter(None.__ne__, map(encoder.token_to_id, _PADS)), None)
        if named is None:
            raise DataError(f"{tokenizer} has no token to pad with", f"it should have one of {', '.join(_PADS)}")
        return cls(content, length, int(named))

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """``input_ids`` and ``attention_mask``, int64 (n, T), T at most ``length``."""
        return TensorSpec("input_ids", "int64", (None, None)), TensorSpec("attention_mask", "int64", (None, None))

    @property
    def files(self) -> Mapping[str, bytes]:
        """``tokenizer.json``."""
        return {TOKENIZER: self.tokenizer}

    def feeds(self, source: Path | str | bytes) -> dict[str, npt.NDArray[Any]]:
        """One text, or a UTF-8 file of one, or the bytes of such a file, without padding.

        Returns:
            ``input_ids`` and ``attention_mask``, int64 (1, T).

        Raises:
            DataError: the file is missing or no UTF-8, or the text is empty or too long.
        """
        ids = self._ids(source)
        return {"input_ids": np.array([ids], np.int64), "attention_mask": np.ones((1, len(ids)), np.int64)}

    def batch(self, sources: Iterable[Path | str | bytes]) -> dict[str, npt.NDArray[Any]]:
        """Several texts, each padded on the right to the longest of them: int64 (n, T).

        Raises:
            DataError: there is none, or as :meth:`feeds` does.
        """
        rows = [self._ids(source) for source in sources]
        if not rows:
            raise DataError("there is no text", "give at least one")
        ids = np.full((len(rows), max(map(len, rows))), self.pad, np.int64)
        mask = np.zeros_like(ids)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        return {"input_ids": ids, "attention_mask": mask}

    def tokens(self, source: Path | str) -> list[str]:
        """One text's tokens as the tokenizer writes them, the special ones too."""
        return [str(token) for token in self._encoder.encode(read_text(source)).tokens]

    def _ids(self, source: Path | str | bytes) -> list[int]:
        ids: list[int] = self._encoder.encode(read_text(source)).ids
        if not ids:
            raise DataError(f"{_name(source)} holds nothing that the tokenizer knows", "remove it or replace it")
        return ids

    @property
    def _encoder(self) -> Any:
        return _encoder(self.tokenizer, self.length)

    @cached_property
    def _sha256(self) -> str:
        return sha256_bytes(self.tokenizer)

    @property
    def digest(self) -> str:
        """SHA-256 of the definition, the tokenizer's content among it."""
        return sha256_json(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; the tokenizer by its hash."""
        return {"kind": self.kind, "length": self.length, "pad": self.pad, "tokenizer_sha256": self._sha256}

    @classmethod
    def from_json(cls, record: Mapping[str, Any], folder: Path) -> Text:
        """Read what :meth:`to_json` wrote, with the tokenizer that lies in ``folder``.

        Raises:
            DataError: a field is missing or of the wrong kind, or the tokenizer is missing or another.
        """
        try:
            length, pad, digest = int(record["length"]), int(record["pad"]), str(record["tokenizer_sha256"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"the definition of the text input is malformed ({error})", "make it again") from error
        file = folder / TOKENIZER
        content = file.read_bytes() if file.is_file() else b""
        if sha256_bytes(content) != digest:
            state = "is another than its record says" if content else "is missing"
            raise DataError(f"the tokenizer {file} {state}", "restore the file or make the run again")
        return cls(content, length, pad)

    @classmethod
    def given(cls, record: Mapping[str, Any], folder: Path) -> Text:
        """What a user wrote: ``tokenizer``, a file (``tokenizer.json``), and ``length`` (128).

        Raises:
            DataError: no tokenizer, or no length.
        """
        try:
            return cls.of(folder / str(record.get("tokenizer", TOKENIZER)), int(record.get("length", 128)))
        except (TypeError, ValueError) as error:
            raise DataError(f"the definition of the text input is malformed ({error})", "give a length") from error


@lru_cache(maxsize=4)
def _encoder(content: bytes, length: int) -> Any:
    library = require("tokenizers", "reading text")
    try:
        encoder = library.Tokenizer.from_buffer(content)
        encoder.no_padding()
        encoder.enable_truncation(length)
    except Exception as error:  # the library raises whatever the content leads it into
        raise DataError(f"this is no tokenizer ({error})", "give a tokenizer.json of the tokenizers library") from error
    return encoder


def _own_padding(content: bytes) -> int | None:
    padding = require("tokenizers", "reading text").Tokenizer.from_buffer(content).padding
    return None if padding is None else int(padding["pad_id"])


def read_text(source: Path | str | bytes) -> str:
    """A text, or that of a file or of its bytes, without white space at its ends.

    Raises:
        DataError: the file is missing, larger than :data:`MOST_BYTES` or no UTF-8, or there is no text in it.
    """
    name = _name(source)
    if not isinstance(source, (str, Path, bytes)):
        raise DataError(f"a {type(source).__name__} is no text", "give a text, or the path of a file")
    if isinstance(source, bytes):
        content = source
    elif isinstance(source, str):
        content = source.encode(errors="surrogatepass")
    else:
        try:
            with source.open("rb") as stream:
                content = stream.read(MOST_BYTES + 1)
        except OSError as error:
            what = "there is no text" if isinstance(error, FileNotFoundError) else "cannot read"
            raise DataError(f"{what} {source}", "restore the file or make the run again") from error
    if len(content) > MOST_BYTES:
        raise DataError(f"{name} has more than {MOST_BYTES} bytes", "split it or remove it")
    try:
        text = content.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name} is not UTF-8 ({error.reason} at byte {error.start})", "convert or remove it"
        ) from error
    if not text:
        raise DataError(f"{name} is empty", "remove it")
    return text


def _name(source: Path | str | bytes) -> str:
    if isinstance(source, bytes):
        return "the text"
    return f"the text {source[:40]!a}" if isinstance(source, str) else str(source)


def fingerprint(path: Path) -> str:
    """SHA-256 of a text in which any run of white space is one space.

    Raises:
        DataError: missing, no UTF-8, empty or too large.
    """
    return sha256_bytes(" ".join(read_text(path).split()).encode())


KIND = InputKind(
    name=Text.kind,
    about="UTF-8 texts, cut into tokens as a tokenizer.json says; int64 input_ids and attention_mask",
    noun="text",
    suffixes=(".txt",),
    read=Text.from_json,
    fields=frozenset({"tokenizer", "length"}),
    given=Text.given,
    fingerprint=fingerprint,
    modules=("tokenizers",),
)
