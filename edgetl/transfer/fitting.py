"""Whether a backbone can be trained on images of a size: tried on torch's meta device, which computes shapes alone."""

from __future__ import annotations

from dataclasses import replace

import torch

from edgetl.base.errors import EdgetlError
from edgetl.inputs.image import Preprocess
from edgetl.transfer.backbones import Backbone
from edgetl.transfer.weights import WeightsSource, architecture

#: Sides that networks take are multiples of these: patches of 14, 16 and 32, windows of 7 patches, strides of 32.
_STEPS = (224, 112, 64, 32, 28, 16, 14, 8)
_OUTPUTS = 3
_LONGEST = 120


def check_fit(backbone: Backbone, source: WeightsSource, definition: Preprocess) -> None:
    """Refuse what would fail once the weights are read and the images prepared.

    Raises:
        EdgetlError: the backbone does not end in one linear layer, or cannot take images of this size; the message
            names sizes near it that it takes.
    """
    reason = refusal(backbone, source, definition)
    if reason is None:
        return
    wanted = f"{definition.width}x{definition.height}"
    what = f"the backbone '{backbone.name}' cannot take images of {wanted} pixels ({reason})"
    raise EdgetlError(what, _remedy(_near(backbone, source, definition)))


def refusal(backbone: Backbone, source: WeightsSource, definition: Preprocess) -> str | None:
    """Why a backbone answers to no image of this size; None if it does, or if that cannot be told.

    Raises:
        EdgetlError: it does not end in one linear layer.
    """
    try:
        with torch.device("meta"), torch.inference_mode():
            model = architecture(backbone, _OUTPUTS, source, definition).eval()
            shape = (2, len(definition.mean), definition.height, definition.width)
            answer = model(torch.empty(shape, device="meta"))
    except (EdgetlError, MemoryError):
        raise
    except NotImplementedError:  # an architecture that looks at values while it is built
        return None
    except Exception as error:  # whatever two libraries and a thousand architectures raise
        return " ".join(str(error).split())[:_LONGEST] or type(error).__name__
    if not isinstance(answer, torch.Tensor) or answer.shape != (2, _OUTPUTS):
        return "it does not answer with one number a class"
    return None


def _near(backbone: Backbone, source: WeightsSource, definition: Preprocess) -> list[int]:
    """The nearest smaller and larger sides that it takes."""
    wanted, own = definition.height, backbone.preprocess
    tried = {side for step in _STEPS for side in (wanted // step * step, wanted // step * step + step)}
    tried |= {own.height} if own is not None else set()
    found: list[int] = []
    for nearer in (
        sorted((side for side in tried if 8 <= side < wanted), reverse=True),
        sorted(side for side in tried if side > wanted),
    ):
        sides = (replace(definition, height=side, width=side, resize=max(definition.resize, side)) for side in nearer)
        taken = next((sized for sized in sides if refusal(backbone, source, sized) is None), None)
        found += [taken.height] if taken is not None else []
    return found


def _remedy(sides: list[int]) -> str:
    return f"give --image-size {' or '.join(map(str, sides))}" if sides else "choose another backbone"
