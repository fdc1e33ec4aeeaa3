"""Short quantization-aware training: the rounded model learns the float model's answers, and labels.

The float model is the teacher of its own rounded copy (distillation for quantized networks: Mishra and Marr 2018;
quantization-aware training with a straight-through gradient: Jacob et al. 2018). Batch norms keep their statistics;
their scales and shifts are trained like the weights. What comes out is a float model again, with the same tensors
under the same names, that is exported and quantized in the ordinary way.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgetl.base.errors import CompressionError
from edgetl.base.progress import Progress, silent
from edgetl.compress.divergences import Divergence, of_classes
from edgetl.compress.recipes import Recipe
from edgetl.compress.rounding import Rounded
from edgetl.core.tensors import Arrays, count, joined, rows

#: Most samples kept in memory, most of them to take ranges from, and most to measure on that are not trained on.
MOST, OBSERVED, HELD_OUT = 2048, 64, 64
#: Times that the ranges are taken again and the model is measured, the start not counted.
ROUNDS = 4
#: Steps after which the time of one is known.
_TIMED = 4
_BATCH = 16


@dataclass(frozen=True)
class Training:
    """How the rounded model is trained.

    Attributes:
        steps: most gradient steps.
        seconds: most time; fewer steps are planned where they would take longer. Only then does the outcome depend
            on the machine's speed.
        batch: samples a step.
        learning_rate: AdamW's highest, relative to the size of what is trained (see :func:`sizes`); half a cosine
            takes it to zero.
        temperature: of the loss (see :mod:`edgetl.compress.divergences`).
        labels: weight of the loss to the labels, where there is one.
        clip: largest norm of the gradient.
        seed: of the order of the samples.
    """

    steps: int = 300
    seconds: float = 600.0
    batch: int = 16
    learning_rate: float = 3e-4
    temperature: float = 1.0
    labels: float = 0.0
    clip: float = 1.0
    seed: int = 0


#: Outputs of some samples and their rows → the loss to their labels, a scalar.
Labelled = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Distilled:
    """The outcome of :func:`distil`.

    Attributes:
        model: a float model of the same class, with the same names in its ``state_dict``, in evaluation mode.
        record: settings, steps, seconds, samples, and the loss on held-out samples at the start and at the end: the
            divergence of the rounded model from its teacher, and what the labels add.
    """

    model: nn.Module
    record: Mapping[str, Any]


def distil(
    model: nn.Module,
    recipe: Recipe,
    samples: Arrays | Iterable[Arrays],
    *,
    teacher: nn.Module | None = None,
    divergence: Divergence = of_classes,
    labelled: Labelled | None = None,
    training: Training | None = None,
    progress: Progress = silent,
) -> Distilled:
    """Train a model's weights for a recipe's 8-bit arithmetic, with a float model as the teacher.

    Ranges are taken again after each quarter of the steps, and the weights of the quarter that does best on held-out
    samples are kept; that may be the start. The same arguments give the same weights, on the same machine with the same
    number of threads.

    Args:
        model: in evaluation mode, of one output; called with a tensor for each input, in order. It is not changed.
        recipe: as for :class:`edgetl.compress.rounding.Rounded`.
        samples: the inputs by name, (n, …) each, from the training split, or batches of them; the first
            :data:`MOST` are used, a quarter of them, :data:`HELD_OUT` at most, not trained on.
        teacher: as ``model``; None for ``model`` itself.
        divergence: that of the task (:func:`edgetl.compress.divergences.divergence_of`).
        labelled: for ``training.labels``.
        training: how; None for the defaults.
        progress: told of each step.

    Raises:
        CompressionError: fewer than 8 samples, settings that make no sense, or a loss that is no number.
    """
    how = training or Training()
    gathered = _gathered(samples)
    _check(model, how, count(gathered), labelled)
    began = time.monotonic()
    course = _Course(model, teacher or model, recipe, how, gathered, divergence, labelled)
    start = best = course.measure()
    kept, best_step = course.state(), 0
    planned, done = how.steps, 0
    while done < planned:
        loss = course.step(done, planned)
        done += 1
        elapsed = time.monotonic() - began
        if done == _TIMED:
            planned = max(min(planned, int(how.seconds / max(elapsed / done, 1e-9))), done)
        told = "quantization-aware training" if how.labels else "distilling"
        progress(told, done, planned, f"loss {loss:.4f}, held out {best:.4f} from {start:.4f}")
        over = elapsed >= how.seconds
        if over or done == planned or done % max(planned // ROUNDS, 1) == 0:
            measured = course.measure()
            if measured < best:
                best, best_step, kept = measured, done, course.state()
        if over:
            break
    outcome = copy.deepcopy(model)
    outcome.load_state_dict(kept)
    record = {
        **asdict(how), "recipe": recipe.digest, "steps": done, "best_step": best_step,
        "seconds": round(time.monotonic() - began, 1), "stopped": "steps" if done == how.steps else "seconds",
        "samples": count(gathered), "held_out": len(course.held_out), "loss": {"start": start, "end": best},
    }  # fmt: skip
    return Distilled(outcome, record)


def _gathered(samples: Arrays | Iterable[Arrays]) -> Arrays:
    if isinstance(samples, Mapping):
        return rows(samples, slice(MOST))
    parts: list[Arrays] = []
    for batch in samples:
        parts.append(batch)
        if sum(map(count, parts)) >= MOST:
            break
    return rows(joined(parts), slice(MOST)) if parts else {}


def _check(model: nn.Module, how: Training, samples: int, labelled: Labelled | None) -> None:
    if model.training:
        raise CompressionError("the model is in training mode", "call model.eval() before distilling")
    if samples < 8:
        raise CompressionError(f"distillation was given {samples} samples", "give 8 or more")
    if how.labels and labelled is None:
        raise CompressionError("the labels have a weight, and there is no loss to them", "give one, or set it to 0")
    positive = (how.steps, how.seconds, how.batch, how.learning_rate, how.temperature, how.clip)
    if not all(value > 0 and math.isfinite(value) for value in positive) or how.labels < 0:
        raise CompressionError(f"these settings of distillation make no sense: {how}", "give positive numbers")


class _Course:
    """The student in training, its teacher and the samples."""

    def __init__(
        self,
        model: nn.Module,
        teacher: nn.Module,
        recipe: Recipe,
        how: Training,
        samples: Arrays,
        divergence: Divergence,
        labelled: Labelled | None,
    ) -> None:
        self.how, self.divergence, self.labelled = how, divergence, labelled
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self.inputs = [torch.from_numpy(np.ascontiguousarray(values)) for values in samples.values()]
        self.draw = torch.Generator().manual_seed(how.seed)
        order = torch.randperm(count(samples), generator=self.draw)
        held = min(HELD_OUT, len(order) // 4)
        self.held_out, self.trained = order[:held], order[held:]
        self.teacher = copy.deepcopy(teacher).requires_grad_(False)
        self.student = copy.deepcopy(model).requires_grad_(True)
        self.rounded = Rounded(self.student, recipe)
        self.sizes = sizes(self.student)
        self.optimizer = torch.optim.AdamW(self.student.parameters(), lr=how.learning_rate, weight_decay=0.0)
        self.answers: dict[int, Tensor] = {}
        self.queue: list[int] = []

    def measure(self) -> float:
        """Take the ranges anew; the loss on held-out samples."""
        self.rounded.observe(*self._fed(self.trained[:OBSERVED]))
        losses = []
        with torch.no_grad():
            for chosen in self.held_out.split(_BATCH):
                losses.append(float(self._loss(chosen, 1.0)) * len(chosen))
        return self._number(sum(losses) / len(self.held_out), "before the first step, or after a quarter")

    def step(self, done: int, planned: int) -> float:
        """One gradient step; the loss on its samples before it."""
        loss = self._loss(self._next(), self.how.temperature)
        self.optimizer.zero_grad()
        loss.backward()
        norm = self._update((1 + math.cos(math.pi * done / planned)) / 2)
        # Rounding turns NaN into numbers, so the loss alone would not show it.
        self._number(float(loss.detach()) + norm, f"at step {done + 1}")
        return float(loss.detach())

    def _loss(self, chosen: Tensor, temperature: float) -> Tensor:
        output = self.rounded(*self._fed(chosen))
        loss = self.divergence(self._taught(chosen), output, temperature)
        if self.how.labels and self.labelled is not None:
            loss = loss + self.how.labels * self.labelled(output, chosen)
        return loss

    @torch.no_grad()
    def _update(self, share: float) -> float:
        """AdamW on the parameters in units of their sizes; the norm of the gradient in those units."""
        parameters = [(p, self.sizes[name]) for name, p in self.student.named_parameters() if p.grad is not None]
        for p, size in parameters:
            p.grad.mul_(size)
        norm = float(nn.utils.clip_grad_norm_([p for p, _ in parameters], self.how.clip))
        before = [p.clone() for p, _ in parameters]
        self.optimizer.param_groups[0]["lr"] = share * self.how.learning_rate
        self.optimizer.step()
        for (p, size), old in zip(parameters, before, strict=True):
            p.copy_(old + size * (p - old))
        return norm

    def state(self) -> dict[str, Tensor]:
        """A copy of the student's tensors."""
        return {name: value.detach().clone() for name, value in self.student.state_dict().items()}

    def _number(self, value: float, where: str) -> float:
        if not math.isfinite(value):
            raise CompressionError(
                f"distillation diverged: the loss became {value} {where}", "lower its learning rate, or skip it"
            )
        return value

    def _fed(self, chosen: Tensor) -> tuple[Tensor, ...]:
        return tuple(values[chosen].to(self.device) for values in self.inputs)

    def _next(self) -> Tensor:
        while len(self.queue) < self.how.batch:
            self.queue += self.trained[torch.randperm(len(self.trained), generator=self.draw)].tolist()
        chosen, self.queue = self.queue[: self.how.batch], self.queue[self.how.batch :]
        return torch.tensor(chosen)

    def _taught(self, chosen: Tensor) -> Tensor:
        """The teacher's outputs, each sample's computed once."""
        missing = [row for row in dict.fromkeys(chosen.tolist()) if row not in self.answers]
        if missing:
            with torch.no_grad():
                self.answers.update(zip(missing, self.teacher(*self._fed(torch.tensor(missing))), strict=True))
        return torch.stack([self.answers[row] for row in chosen.tolist()])


def sizes(model: nn.Module) -> dict[str, Tensor]:
    """How large a step of 1 is for each parameter, by name; each broadcasts to its parameter.

    Channels may be scaled at will where the next layer undoes it, so a weight is measured by the root mean squares of
    its row and its column (the factors of Adafactor, Shazeer and Stern 2018), a batch norm's scale and shift by that
    scale, a layer's shift by the norm of its row: training is then the same however channels are scaled.
    """
    found: dict[str, Tensor] = {}
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            value, weight = parameter.detach(), getattr(module, "weight", None)
            if value.ndim > 1:
                rest = tuple(range(2, value.ndim))
                square = value.square().mean(rest, keepdim=True) if rest else value.square()
                size = (square.mean(0, keepdim=True) * square.mean(1, keepdim=True) / square.mean()).sqrt()
            elif isinstance(weight, Tensor) and weight.ndim == 1:
                size = weight.detach().abs()
            elif isinstance(weight, Tensor) and len(weight) == len(value):
                size = weight.detach().flatten(1).norm(dim=1)
            else:
                size = value.square().mean().sqrt()
            found[f"{prefix}.{name}" if prefix else name] = torch.nan_to_num(size).clamp_min(1e-12)
    return found
