"""Weights on a grid of sixteen values a group: trained there, so that storing them as 4 bits loses nothing.

    put_on_grid(model)        # every forward pass sees rounded weights, the optimiser full ones
    ...                       # train
    settle(model)             # the rounded weights are the model's own from here on

128 neighbouring weights of one output share a scale, a sixteen-bit float: their largest value by size
is -8 of it, the others are rounded to -8..7. Gradients pass through the rounding unchanged (the
straight-through estimator, Bengio, Leonard and Courville 2013; Jacob et al. 2018 on training with it).
Rounding a rounded weight changes nothing, so the file that ships and the model in torch are the same.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.utils import parametrize

GROUP = 128
"""Weights that share a scale."""
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


def _rounded(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Values (rows, groups, `GROUP`) and scales (rows, groups, 1), both float32, of a matrix by its rows."""
    grouped = weight.reshape(weight.shape[0], -1, GROUP)
    peak = grouped.gather(2, grouped.abs().argmax(dim=2, keepdim=True))
    scale = (peak / -8).half().float()
    steps = grouped / torch.where(scale == 0, torch.ones_like(scale), scale)
    return steps.round_().clamp_(-8, 7), scale


class OnGrid(torch.nn.Module):
    """A weight rounded to its grid, shape kept; groups run along its last dimension."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The rounded weight, with the gradient of the weight itself."""
        with torch.no_grad():
            values, scale = _rounded(weight)
            step = (values * scale).reshape(weight.shape) - weight
        return weight + step


def put_on_grid(model: torch.nn.Module) -> int:
    """Round every large linear layer and embedding from now on; how many there are."""
    large = [module for module in model.modules() if _fits(module)]
    for module in large:
        parametrize.register_parametrization(module, "weight", OnGrid())
    return len(large)


def settle(model: torch.nn.Module) -> None:
    """Make rounded weights the model's own, as `save_pretrained` needs them."""
    for module in list(model.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)


def fits(shape: tuple[int, ...] | list[int], axis: int) -> bool:
    """Whether a tensor of this shape goes on the grid, in groups along `axis`."""
    return len(shape) == 2 and int(np.prod(shape)) >= SMALLEST and shape[axis] % GROUP == 0


def _fits(module: torch.nn.Module) -> bool:
    if not isinstance(module, torch.nn.Linear | torch.nn.Embedding):
        return False
    return fits(tuple(module.weight.shape), 1)
