"""A torch model that computes as its 8-bit deployment does, in float and with gradients (Jacob et al. 2018).

Weights are rounded as they are deployed, with the batch norm behind them folded in. For one scale an output channel
that needs no folding: the batch norm multiplies a whole channel, and with it the channel's scale, so rounding the raw
weight gives the same integers. For one scale a tensor it does, and the factors are taken out again afterwards.

Activations are rounded where an operator of :data:`READS` reads them, on ranges observed beforehand; what lies before
the first weighted operator is preprocessing and stays in float. Products of two activations that are no elementwise
product (attention) stay in float too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from edgetl.base.errors import CompressionError
from edgetl.compress.recipes import Recipe

#: torch functions with weights → the ONNX operator that they become.
WEIGHTED: Mapping[str, str] = {"conv2d": "Conv", "linear": "Gemm"}
#: Other functions that read 8-bit numbers; in-place forms go by the same name without the underscore.
READS: Mapping[str, str] = {"add": "Add", "mul": "Mul", "sigmoid": "Sigmoid", "silu": "Sigmoid"}
#: Largest number of values of a tensor that a percentile or an error is taken over.
SAMPLED = 1 << 16
_TINY = 1e-30
_BATCH = 16


class Rounded:
    """A model with the arithmetic of a recipe; call :meth:`observe` before the first use.

    Args:
        model: in evaluation mode, of Conv2d and Linear layers that call ``conv2d`` and ``linear`` on their own weight;
            it is never changed. Its control flow may not depend on the sample.
        recipe: its activations, weights, per_channel, estimator and excluded operators and nodes (``module/Operator``)
            count; ``entropy`` is stood in for by the least squared error.

    Attributes:
        ranges: lowest and highest value at each place where activations are read, in the order of execution.
    """

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        self.model, self.recipe = model, recipe
        excluded = {node.rsplit("/", 1)[0] for node in recipe.exclude_nodes}
        kinds = {nn.Conv2d: "Conv", nn.Linear: "Gemm"}
        self._layers = {
            name: layer
            for name, layer in model.named_modules()
            for kind, operator in kinds.items()
            if isinstance(layer, kind) and name not in excluded and operator not in recipe.exclude_operators
        }
        self._norms: dict[str, nn.Module] = {}
        self.ranges: list[tuple[float, float]] = []

    def observe(self, *inputs: Tensor) -> None:
        """Take the ranges of the activations from samples, (n, …) for each input, with the weights in float.

        Raises:
            CompressionError: an activation is NaN or infinite.
        """
        seen: list[list[tuple[float, float]]] = []

        def note(site: int, x: Tensor) -> Tensor:
            seen[-1].append(self._range(x))
            return x

        weights = {id(layer.weight): name for name, layer in self._layers.items()}
        norms = {id(m.running_var): m for m in self.model.modules() if getattr(m, "running_var", None) is not None}
        with torch.no_grad():
            for start in range(0, len(inputs[0]), _BATCH):
                seen.append([])
                with _Reads(set(weights), self.recipe, note) as reads:
                    self.model(*(values[start : start + _BATCH] for values in inputs))
        self._norms = {weights[w]: norms[v] for w, v in reads.followed.items() if w in weights and v in norms}
        average = self.recipe.estimator in ("mean-min-max", "percentile")
        self.ranges = []
        for site in zip(*seen, strict=True):
            lows, highs = zip(*site, strict=True)
            both = (sum(lows) / len(lows), sum(highs) / len(highs)) if average else (min(lows), max(highs))
            if not all(map(math.isfinite, both)):
                raise CompressionError("an activation of the model is no finite number", "train with a lower rate")
            self.ranges.append(both)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The model's output, float (n, …), for samples, (n, …) for each input, with gradients to its parameters."""
        weights = {f"{name}.weight": self._weight(name, layer) for name, layer in self._layers.items()}
        with _Reads({id(value) for value in weights.values()}, self.recipe, self._snap):
            output: Tensor = functional_call(self.model, weights, inputs)
        return output

    def _weight(self, name: str, layer: nn.Module) -> Tensor:
        weight: Tensor = layer.weight
        if self.recipe.per_channel:
            scale = (weight.detach().flatten(1).abs().amax(1) / 127).clamp_min(_TINY)
            zero = torch.zeros_like(scale, dtype=torch.int32)
            return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -127, 127)
        factor: Tensor | float = 1.0
        if name in self._norms:
            norm = self._norms[name]
            gain = torch.rsqrt(norm.running_var + norm.eps)
            gain = gain if norm.weight is None else gain * norm.weight.detach()
            # A channel that the norm silences has no part in the range, and any value will do for it.
            factor = torch.where(gain == 0, torch.full_like(gain, _TINY), gain).view(-1, 1, 1, 1)
        folded = weight * factor
        scale = max(float(folded.detach().abs().max()) / 127, _TINY)
        rounded: Tensor = torch.fake_quantize_per_tensor_affine(folded, scale, 0, -127, 127) / factor
        return rounded

    def _range(self, x: Tensor) -> tuple[float, float]:
        low, high = x.min(), x.max()
        if self.recipe.estimator == "mean-min-max":
            low, high = x.flatten(1).amin(1).mean(), x.flatten(1).amax(1).mean()
        elif self.recipe.estimator != "min-max":
            flat = x.flatten()
            values = flat[:: -(-len(flat) // SAMPLED)]
            if self.recipe.estimator == "percentile":
                share = torch.tensor([1 - self.recipe.percentile / 100, self.recipe.percentile / 100], device=x.device)
                low, high = torch.quantile(values.float(), share)
            else:
                return self._least_error(values, float(low), float(high))
        return float(low), float(high)

    def _least_error(self, values: Tensor, low: float, high: float) -> tuple[float, float]:
        shares = [step / 20 for step in range(4, 21)]
        errors = [float((self._round(values, s * low, s * high) - values).square().mean()) for s in shares]
        best = shares[errors.index(min(errors))]
        return best * low, best * high

    def _snap(self, site: int, x: Tensor) -> Tensor:
        return self._round(x, *self.ranges[site])

    def _round(self, x: Tensor, low: float, high: float) -> Tensor:
        low, high = min(low, 0.0), max(high, 0.0)
        first, last = (0, 255) if self.recipe.activations == "uint8" else (-128, 127)
        if self.recipe.activations == "by-sign" and low == 0:
            scale, zero, first, last = high / 255, 0, 0, 255
        elif self.recipe.activations_symmetric or self.recipe.activations == "by-sign":
            scale, zero = max(-low, high) / 127, 0
        else:
            scale = (high - low) / 255
            zero = first + round(-low / max(scale, _TINY))
        snapped: Tensor = torch.fake_quantize_per_tensor_affine(x, max(scale, _TINY), zero, first, last)
        return snapped


class _Reads(TorchFunctionMode):
    """Puts a function between activations and the operators that read them.

    Attributes:
        followed: id of a weight → id of the running variance of the batch norm that reads its layer alone.
    """

    def __init__(self, weights: set[int], recipe: Recipe, act: Callable[[int, Tensor], Tensor]) -> None:
        super().__init__()
        self.weights, self.act = weights, act
        self.names = {name for name, operator in READS.items() if operator not in recipe.exclude_operators}
        self.followed: dict[int, int] = {}
        self._site, self._begun = 0, False
        self._last: tuple[Any, int] = (None, 0)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "").rstrip("_")
        if name in WEIGHTED:
            self._begun, weight = True, id(args[1])
            if weight in self.weights:
                args = (self._acted(args[0]), *args[1:])
            outcome = func(*args, **(kwargs or {}))
            self._last = (outcome, weight)
            return outcome
        if name == "batch_norm" and args[0] is self._last[0]:
            self.followed[self._last[1]] = id(args[2])
        elif name in self.names and self._begun:
            args = tuple(self._acted(x) if _is_activation(x) else x for x in args)
        return func(*args, **(kwargs or {}))

    def _acted(self, x: Tensor) -> Tensor:
        self._site += 1
        return self.act(self._site - 1, x)


def _is_activation(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point() and x.ndim > 1
