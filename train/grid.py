"""Weights on a grid of sixteen values a group: trained there, so that storing them as 4 bits loses nothing.

    grid = put_on_grid(model)   # every forward pass sees rounded weights, the optimiser full ones
    grid.active = False         # until it is True again, full ones too
    ...                         # train
    settle(model)               # the rounded weights are the model's own from here on

128 neighbouring weights of one output share a scale, a sixteen-bit float: their largest value by size
is -8 of it, the others are rounded to -8..7. Gradients pass through the rounding unchanged (the
straight-through estimator, Bengio, Leonard and Courville 2013; Jacob et al. 2018 on training with it).
Rounding a rounded weight changes nothing, so the file that ships and the model in torch are the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.utils import parametrize
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

GROUP = 128
"""Weights that share a scale."""
_SHARES = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7)
"""Of the largest weight of a group, where the grid of a frozen weight may also end."""
SMALLEST = 4096
"""Tensors with fewer elements keep their precision: the classifier's last layer, attention biases."""

Fp32 = npt.NDArray[np.float32]


def four_bits(weight: Fp32, axis: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float16]]:
    """A matrix as values -8..7 of its shape and scales, of which `axis` is `GROUP` times shorter.

    Args:
        weight: float32, two dimensions.
        axis: along which neighbours share a scale; its length is a multiple of `GROUP`.
    """
    rows = np.moveaxis(weight, axis, 1).copy()  # what an ONNX file holds cannot be written to, torch warns
    values, scale = _rounded(torch.from_numpy(rows))
    shaped = values.numpy().astype(np.int8).reshape(rows.shape)
    return np.moveaxis(shaped, 1, axis), np.moveaxis(scale[..., 0].numpy().astype(np.float16), 1, axis)


def _rounded(weight: torch.Tensor, share: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Values (rows, groups, `GROUP`) and scales (rows, groups, 1), both float32, of a matrix by its rows."""
    grouped = weight.reshape(weight.shape[0], -1, GROUP)
    peak = grouped.gather(2, grouped.abs().argmax(dim=2, keepdim=True))
    scale = (share * peak / -8).half().float()
    steps = grouped / torch.where(scale == 0, torch.ones_like(scale), scale)
    return steps.round_().clamp_(-8, 7), scale


def _nearest(weight: torch.Tensor) -> torch.Tensor:
    """A matrix on the grid, the scale of each group chosen so that least is lost of its weights.

    Cutting off the largest weights makes the steps finer for the others.
    """
    values, scale = _rounded(weight)
    best = values * scale
    grouped = weight.reshape(best.shape)
    least = (best - grouped).square().sum(dim=2, keepdim=True)
    for share in _SHARES:
        values, scale = _rounded(weight, share)
        miss = (values * scale - grouped).square().sum(dim=2, keepdim=True)
        best = torch.where(miss < least, values * scale, best)
        least = torch.minimum(miss, least)
    return best.reshape(weight.shape)


@dataclass
class Grid:
    """Whether the trained weights of a model are rounded as they are used, and how many tensors that is."""

    active: bool = True
    tensors: int = 0
    rounded: list[torch.Tensor] = field(default_factory=list)
    """Trained weights that lay on their grid before training."""

    def begin(self) -> None:
        """Round trained weights from now on.

        Those that began on the points of their grid have moved by less than half a step since, most of
        them: rounding to the nearest point would undo what they learnt. Shaken by up to half a step they
        round to what they are on average.
        """
        self.active = True
        # Seeded by itself: processes that train together must shake alike, whatever each has drawn before.
        generator = torch.Generator().manual_seed(0)
        for weight in self.rounded:
            with torch.no_grad():
                _, scale = _rounded(weight)
                grouped = weight.reshape(*scale.shape[:2], GROUP)
                noise = torch.rand(grouped.shape, generator=generator).to(weight.device) - 0.5
                noise.scatter_(2, grouped.abs().argmax(dim=2, keepdim=True), 0)  # it sets the scale
                weight.add_((noise * scale).reshape(weight.shape))


class OnGrid(torch.nn.Module):
    """A weight rounded to its grid, shape kept; groups run along its last dimension."""

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self._grid = grid

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The rounded weight, with the gradient of the weight itself."""
        if not self._grid.active:
            return weight
        with torch.no_grad():
            values, scale = _rounded(weight)
            step = (values * scale).reshape(weight.shape) - weight
        return weight + step


def put_on_grid(model: torch.nn.Module) -> Grid:
    """Round every large linear layer and embedding from now on; frozen ones once and for all."""
    grid = Grid()
    for module in [module for module in model.modules() if _fits(module)]:
        grid.tensors += 1
        full = module.weight
        if not full.requires_grad:
            full.data = _nearest(full.data)
            continue
        if torch.equal(OnGrid(Grid())(full), full):
            grid.rounded.append(full)
        parametrize.register_parametrization(module, "weight", OnGrid(grid))  # keeps `full` as it is
    return grid


class RoundFrom(TrainerCallback):
    """Uses the trained weights as rounded after a share of the steps, in a resumed run too."""

    def __init__(self, grid: Grid, share: float) -> None:
        self._grid = grid
        self._share = share

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401  model, optimiser and so on
    ) -> None:
        """Called by the training loop, a resumed one too."""
        self._grid.active = self._due(state)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401
    ) -> None:
        """Called by the training loop after each step."""
        if self._due(state) and not self._grid.active:
            self._grid.begin()

    def _due(self, state: TrainerState) -> bool:
        return self._share < 1 and state.global_step >= self._share * state.max_steps


def settle(model: torch.nn.Module) -> None:
    """Make rounded weights the model's own, as `save_pretrained` needs them."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


def fits(shape: tuple[int, ...] | list[int], axis: int) -> bool:
    """Whether a tensor of this shape goes on the grid, in groups along `axis`."""
    return len(shape) == 2 and int(np.prod(shape)) >= SMALLEST and shape[axis] % GROUP == 0


def _fits(module: torch.nn.Module) -> TypeGuard[torch.nn.Linear | torch.nn.Embedding]:
    if not isinstance(module, torch.nn.Linear | torch.nn.Embedding):
        return False
    return fits(tuple(module.weight.shape), 1)
