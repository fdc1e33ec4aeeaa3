"""In Python: any ``nn.Module`` from prepared inputs to outputs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from edgetl.base.storage import sha256_bytes, sha256_json
from edgetl.workflow.adoption.given import Given, Reader

if TYPE_CHECKING:
    from torch import nn


def _takes(model: Any) -> bool:
    # Whoever has a module has imported torch.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(model, torch.nn.Module)


def _read(model: nn.Module) -> Given:
    state = {name: value.detach().cpu() for name, value in model.state_dict().items()}
    hashes = [[name, list(value.shape), sha256_bytes(value.numpy().tobytes())] for name, value in state.items()]
    return Given("module", type(model).__name__, sha256_json(hashes), module=model.eval())


READER = Reader("module", "in Python, an nn.Module", _takes, _read)
