"""One owner for all tests of adoption."""

from __future__ import annotations

import pytest

from tests.adoption.foreign import Owned, owned
from tests.cli.conftest import here

__all__ = ["here"]


@pytest.fixture(scope="session")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Owned:
    """Somebody with a model, photographs and answers."""
    return owned(tmp_path_factory.mktemp("owner"))
