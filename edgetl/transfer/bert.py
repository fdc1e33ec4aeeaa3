"""BERT as a classifier of texts, in plain operations: what is exported is MatMul, Softmax and LayerNormalization.

The tensors have the names that Hugging Face's ``BertModel`` gives them, so that either can read the other's.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

#: Added to the attention to padding. Finite, so that float16 and 8-bit ranges can hold it; exp gives 0 in float32.
MASKED = -1e4


@dataclass(frozen=True)
class Shape:
    """Sizes of a BERT, and how often it drops a value in training."""

    words: int
    positions: int
    width: int
    inner: int
    layers: int
    heads: int
    epsilon: float = 1e-12
    dropout: float = 0.1


SHAPES = {"all-MiniLM-L6-v2": Shape(words=30522, positions=512, width=384, inner=1536, layers=6, heads=12)}


def _normed(inputs: int, shape: Shape) -> nn.ModuleDict:
    dense, norm = nn.Linear(inputs, shape.width), nn.LayerNorm(shape.width, eps=shape.epsilon)
    return nn.ModuleDict({"dense": dense, "LayerNorm": norm})


class Layer(nn.Module):
    """Self-attention, then two dense layers, each added to its input and normalised (Vaswani et al. 2017)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, self.dropout = shape.heads, shape.dropout
        three = {name: nn.Linear(shape.width, shape.width) for name in ("query", "key", "value")}
        self.attention = nn.ModuleDict({"self": nn.ModuleDict(three), "output": _normed(shape.width, shape)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(shape.width, shape.inner)})
        self.output = _normed(shape.inner, shape)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """From (n, tokens, width) and an additive mask (n, 1, 1, tokens) to (n, tokens, width)."""
        mixed = self.attend(x, mask)
        x = self._added(self.attention["output"], mixed, x)
        return self._added(self.output, functional.gelu(self.intermediate["dense"](x)), x)

    def attend(self, x: Tensor, mask: Tensor) -> Tensor:
        """Every token as the mean of all values, weighted by how well its query meets their keys."""
        maps = self.attention["self"]
        query, key, value = (
            maps[name](x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for name in ("query", "key", "value")
        )
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5 + mask
        weights = functional.dropout(scores.softmax(-1), self.dropout, self.training)
        return (weights @ value).transpose(1, 2).flatten(2)

    def _added(self, block: nn.ModuleDict, inner: Tensor, x: Tensor) -> Tensor:
        change = functional.dropout(block["dense"](inner), self.dropout, self.training)
        result: Tensor = block["LayerNorm"](change + x)
        return result


class Bert(nn.Module):
    """From token numbers to logits: BERT, the mean over the tokens of a text, and a linear head.

    Args:
        shape: sizes.
        outputs: width of the head.
    """

    def __init__(self, shape: Shape, outputs: int) -> None:
        super().__init__()
        self.dropout = shape.dropout
        tables = {"word": shape.words, "position": shape.positions, "token_type": 2}
        named: dict[str, nn.Module] = {f"{n}_embeddings": nn.Embedding(k, shape.width) for n, k in tables.items()}
        self.embeddings = nn.ModuleDict({**named, "LayerNorm": nn.LayerNorm(shape.width, eps=shape.epsilon)})
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer(shape) for _ in range(shape.layers))})
        self.head = nn.Linear(shape.width, outputs)
        self.apply(_initialise)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """From int64 token numbers and their mask (1 a token, 0 padding), both (n, tokens), to (n, outputs)."""
        kept = attention_mask.to(self.head.weight.dtype)
        mask = ((1 - kept) * MASKED)[:, None, None, :]
        x = self.embed(input_ids)
        for layer in self.encoder["layer"]:
            x = layer(x, mask)
        return self.head(pooled(x, kept))

    def embed(self, input_ids: Tensor) -> Tensor:
        """Token numbers to (n, tokens, width); all of one segment."""
        parts = self.embeddings
        places = parts["position_embeddings"].weight + parts["token_type_embeddings"].weight[0]
        x = parts["word_embeddings"](input_ids) + places[: input_ids.shape[1]]
        return functional.dropout(parts["LayerNorm"](x), self.dropout, self.training)

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:
        """Which layer a tensor belongs to, as timm's layer-wise learning rates ask."""
        return {"stem": r"^embeddings", "blocks": r"^encoder\.layer\.(\d+)"}


def pooled(x: Tensor, kept: Tensor) -> Tensor:
    """Mean over the tokens that are kept: (n, tokens, width) and (n, tokens) to (n, width)."""
    weights = kept[..., None]
    return (x * weights).sum(1) / weights.sum(1)


def _initialise(module: nn.Module) -> None:
    # As BERT was (Devlin et al. 2019), for a start without pretrained weights.
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


def state_from(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a ``BertModel`` that a :class:`Bert` has: without its pooler, which sentence embeddings skip."""
    return {
        name: value for name, value in tensors.items() if not name.startswith(("pooler.", "embeddings.position_ids"))
    }
