"""What holds for every kind of input: a suite that each inherits.

``tests/inputs/test_NAME.py`` defines ``class TestName(InputContract)`` with ``made``, ``others``, ``write``, ``copies``
and ``spoilt``.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetl.base.errors import DataError
from edgetl.base.storage import sha256_json
from edgetl.core.run import PREPROCESS_FILE
from edgetl.inputs import INPUTS, Input, write_input


class InputContract:
    """Inherit and say what differs."""

    def made(self) -> Input:
        """One definition."""
        raise NotImplementedError

    def others(self) -> Mapping[str, Input]:
        """Definitions that differ from it in one thing each, by the thing's name."""
        raise NotImplementedError

    def write(self, folder: Path) -> tuple[Sequence[Path], Sequence[Any]]:
        """Three different samples as files, and as what a program would hold."""
        raise NotImplementedError

    def copies(self, folder: Path) -> tuple[Path, Path]:
        """One sample in two files of different bytes."""
        raise NotImplementedError

    def spoilt(self, folder: Path) -> Sequence[Path]:
        """Files that are no samples."""
        raise NotImplementedError

    def test_is_registered(self) -> None:
        kind = INPUTS[self.made().kind]
        assert kind.name == self.made().kind
        assert kind.about
        assert "\n" not in kind.about
        assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in kind.suffixes)
        owners = [other.name for other in INPUTS.values() if set(other.suffixes) & set(kind.suffixes)]
        assert owners == [kind.name]

    def test_a_sample_fits_the_tensors(self, tmp_path: Path) -> None:
        made = self.made()
        for sample in self.write(tmp_path)[0]:
            feeds = made.feeds(sample)
            assert list(feeds) == [spec.name for spec in made.tensors]
            for spec in made.tensors:
                assert spec.accepts(feeds[spec.name]), str(spec)
                assert len(feeds[spec.name]) == 1
                assert feeds[spec.name].flags.c_contiguous

    def test_a_batch_is_its_samples_in_order(self, tmp_path: Path) -> None:
        made = self.made()
        files = [*self.write(tmp_path)[0], self.write(tmp_path)[0][0]]
        batch = made.batch(iter(files))
        for spec in made.tensors:
            assert spec.accepts(batch[spec.name])
            assert len(batch[spec.name]) == len(files)
            for row, file in enumerate(files):
                alone = made.feeds(file)[spec.name][0]
                np.testing.assert_array_equal(batch[spec.name][row][tuple(map(slice, alone.shape))], alone)

    def test_the_bytes_of_a_file_are_the_file(self, tmp_path: Path) -> None:
        made = self.made()
        for file in self.write(tmp_path)[0]:
            expected = made.feeds(file)
            for name, array in made.feeds(file.read_bytes()).items():
                np.testing.assert_array_equal(array, expected[name])
        for file in filter(Path.is_file, self.spoilt(tmp_path)):
            with pytest.raises(DataError) as caught:
                made.feeds(file.read_bytes())
            assert str(tmp_path) not in str(caught.value)

    def test_what_a_program_holds_is_what_its_file_holds(self, tmp_path: Path) -> None:
        made = self.made()
        for file, held in zip(*self.write(tmp_path), strict=True):
            for name, array in made.feeds(file).items():
                np.testing.assert_array_equal(made.feeds(held)[name], array)

    def test_it_is_read_again_from_a_folder(self, tmp_path: Path) -> None:
        for made in (self.made(), *self.others().values()):
            names = write_input(tmp_path, made)
            assert set(names) == {PREPROCESS_FILE, *made.files}
            record = json.loads((tmp_path / PREPROCESS_FILE).read_text())
            again = INPUTS[record["kind"]].read(record, tmp_path)
            assert again == made
            assert again.digest == made.digest == sha256_json(record)
            assert pickle.loads(pickle.dumps(made)) == made, "loaders send it to other processes"

    def test_the_digest_knows_everything(self) -> None:
        digests = {"itself": self.made().digest, **{name: other.digest for name, other in self.others().items()}}
        assert len(set(digests.values())) == len(digests), digests

    def test_a_file_of_it_that_was_changed_is_refused(self, tmp_path: Path) -> None:
        made = self.made()
        write_input(tmp_path, made)
        for name, content in made.files.items():
            for damaged in (content[:-1], b""):
                (tmp_path / name).write_bytes(damaged)
                with pytest.raises(DataError, match=name):
                    INPUTS[made.kind].read(made.to_json(), tmp_path)
            (tmp_path / name).write_bytes(content)

    def test_malformed_records_are_refused_in_one_line(self, tmp_path: Path) -> None:
        made = self.made()
        write_input(tmp_path, made)
        record = made.to_json()
        read = INPUTS[made.kind].read
        for name in sorted(set(record) - {"kind"}):
            for value in (None, "much", {"a": 1}, float("inf"), -1):
                with pytest.raises(DataError) as caught:
                    read({**record, name: value}, tmp_path)
                assert "\n" not in str(caught.value), f"{name} {value}"

    def test_what_is_no_sample_is_refused_and_named(self, tmp_path: Path) -> None:
        made = self.made()
        fingerprint = INPUTS[made.kind].fingerprint
        for file in (*self.spoilt(tmp_path), tmp_path / "gone", tmp_path):
            for attempt in (made.feeds, fingerprint):
                with pytest.raises(DataError) as caught:
                    attempt(file)
                assert str(file) in str(caught.value)
                assert "\n" not in str(caught.value)

    def test_something_else_is_refused(self) -> None:
        for thing in (7, None, [1, "a"], {"a": "b"}, object()):
            with pytest.raises(DataError):
                self.made().feeds(thing)

    def test_an_empty_batch_is_refused(self) -> None:
        with pytest.raises(DataError, match="there is no"):
            self.made().batch([])

    def test_a_fingerprint_tells_samples_not_files(self, tmp_path: Path) -> None:
        fingerprint = INPUTS[self.made().kind].fingerprint
        one, two = self.copies(tmp_path)
        assert one.read_bytes() != two.read_bytes()
        assert fingerprint(one) == fingerprint(two)
        files = self.write(tmp_path)[0]
        assert len({fingerprint(file) for file in files}) == len(files)
