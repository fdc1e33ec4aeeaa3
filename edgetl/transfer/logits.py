"""Models of transformers that give their logits alone, as a network of edgetl's does."""

from __future__ import annotations

from torch import Tensor, nn


class OfImage(nn.Module):
    """A model for image classification, from normalised images (n, channels, height, width)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Logits (n, classes)."""
        logits: Tensor = self.model(pixel_values=pixel_values).logits
        return logits


class OfText(OfImage):
    """A model for sequence classification, from token numbers and their mask, int64 (n, tokens)."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:  # type: ignore[override]
        """Logits (n, classes)."""
        logits: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits
