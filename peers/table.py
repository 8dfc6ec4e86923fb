"""What each op of the registry is in PyTorch, or why PyTorch has none.

A function here is given a node and one torch tensor for each of its inputs. Extents among a node's attributes are
numbers by then.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

Attrs = dict[str, Any]
Peer = Callable[..., torch.Tensor]


def dtype_of(dtype: Any) -> torch.dtype:
    """torch's dtype of a NumPy dtype."""
    return torch.from_numpy(np.zeros(1, dtype)).dtype


def _plain(function: Callable[..., Any]) -> Peer:
    return lambda attrs, *tensors: function(*tensors)


def _divided(function: Callable[..., Any]) -> Peer:
    """Integers over 0 raise in PyTorch and give 0 here."""

    def peer(attrs: Attrs, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if x.dtype.is_floating_point:
            return function(x, y)
        return torch.where(y == 0, 0, function(x, torch.where(y == 0, 1, y))).to(x.dtype)

    return peer


def _shifted(function: Callable[..., Any], last: Callable[[torch.Tensor], torch.Tensor]) -> Peer:
    """A shift by the width or more, or by less than 0, is not defined in PyTorch; here nothing is left but the sign."""

    def peer(attrs: Attrs, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        inside = (y >= 0) & (y < 8 * x.dtype.itemsize)
        return torch.where(inside, function(x, torch.where(inside, y, 0)), last(x))

    return peer


def _reduced(function: Callable[..., Any]) -> Peer:
    return lambda attrs, x: function(x, attrs["axis"], keepdim=attrs["keepdims"])


def _prod(attrs: Attrs, x: torch.Tensor) -> torch.Tensor:
    for axis in sorted(attrs["axis"], reverse=True):
        x = torch.prod(x, axis, keepdim=attrs["keepdims"], dtype=x.dtype)
    return x


def _places(attrs: Attrs, counts: Any) -> list[torch.Tensor]:
    return [
        start + step * torch.arange(count)
        for start, step, count in zip(attrs["start"], attrs["step"], counts, strict=True)
    ]


def _slice(attrs: Attrs, x: torch.Tensor) -> torch.Tensor:
    for axis, places in enumerate(_places(attrs, attrs["shape"])):
        x = x.index_select(axis, places)
    return x


def _pad(attrs: Attrs, x: torch.Tensor) -> torch.Tensor:
    grid = torch.meshgrid(*_places(attrs, x.shape), indexing="ij")
    return torch.zeros(attrs["shape"], dtype=x.dtype).index_put(grid, x)


def _cumulative_sum(attrs: Attrs, x: torch.Tensor) -> torch.Tensor:
    axis = attrs["axis"]
    if attrs["reverse"]:
        return torch.cumsum(x.flip(axis), axis, dtype=x.dtype).flip(axis)
    return torch.cumsum(x, axis, dtype=x.dtype)


def _gather(attrs: Attrs, x: torch.Tensor, *indices: torch.Tensor) -> torch.Tensor:
    given = iter(indices)
    places = []
    for axis, place in enumerate(attrs["layout"]):
        if place is None:
            places.append(next(given))
        else:
            form = [1] * attrs["rank"]
            form[place] = x.shape[axis]
            places.append(torch.arange(x.shape[axis]).reshape(form))
    return x[tuple(places)]


def _scatter_add(attrs: Attrs, indices: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
    outer, _, inner = updates.shape
    start = torch.zeros((outer, attrs["extent"], inner), dtype=updates.dtype)
    if indices.ndim == 1:
        return start.index_add(1, indices, updates)
    return start.scatter_add(1, indices, updates)


def _gemm_add(attrs: Attrs, a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    left, right = (a.T if attrs["trans_a"] else a), (b.T if attrs["trans_b"] else b)
    return torch.addmm(c, left, right, alpha=attrs["scale"])


def _clip(attrs: Attrs, x: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    x, low, high = torch.broadcast_tensors(x, low, high)  # its derivative fails for bounds that broadcast
    return torch.clamp(x, min=low, max=high)


PEERS: dict[str, Peer] = {
    "constant": lambda attrs: torch.from_numpy(np.array(attrs["value"])),
    "extent": lambda attrs: torch.tensor(attrs["extent"], dtype=dtype_of(attrs["dtype"])),
    "arange": lambda attrs: torch.arange(attrs["extent"]).to(dtype_of(attrs["dtype"])),
    "less": _plain(torch.lt), "less_equal": _plain(torch.le), "greater": _plain(torch.gt),
    "greater_equal": _plain(torch.ge), "equal": _plain(torch.eq), "not_equal": _plain(torch.ne),
    "logical_and": _plain(torch.logical_and), "logical_or": _plain(torch.logical_or),
    "logical_xor": _plain(torch.logical_xor), "logical_not": _plain(torch.logical_not), "where": _plain(torch.where),
    "bitwise_and": _plain(torch.bitwise_and), "bitwise_or": _plain(torch.bitwise_or),
    "bitwise_xor": _plain(torch.bitwise_xor), "bitwise_invert": _plain(torch.bitwise_not),
    "bitwise_left_shift": _shifted(torch.bitwise_left_shift, torch.zeros_like),
    "bitwise_right_shift": _shifted(torch.bitwise_right_shift, lambda x: torch.where(x < 0, -1, 0).to(x.dtype)),
    "add": _plain(torch.add), "subtract": _plain(torch.sub), "multiply": _plain(torch.mul),
    "divide": _plain(torch.true_divide), "maximum": _plain(torch.maximum), "minimum": _plain(torch.minimum),
    "clip": _clip, "negative": _plain(torch.neg), "abs": _plain(torch.abs), "sign": _plain(torch.sign),
    "square": _plain(torch.square), "relu": _plain(torch.relu),
    "astype": lambda attrs, x: x.to(dtype_of(attrs["dtype"])), "stop_gradient": _plain(torch.Tensor.detach),
    "broadcast_to": lambda attrs, x: x.broadcast_to(attrs["shape"]),
    "permute_dims": lambda attrs, x: x.permute(attrs["axes"]),
    "expand_dims": lambda attrs, x: _unsqueezed(x, attrs["axes"]),
    "squeeze": lambda attrs, x: x.squeeze(attrs["axes"]), "reshape": lambda attrs, x: x.reshape(attrs["shape"]),
    "exp": _plain(torch.exp), "exp2": _plain(torch.exp2), "expm1": _plain(torch.expm1), "log": _plain(torch.log),
    "log1p": _plain(torch.log1p), "log2": _plain(torch.log2), "log10": _plain(torch.log10), "tanh": _plain(torch.tanh),
    "sigmoid": _plain(torch.sigmoid), "erf": _plain(torch.erf), "erfc": _plain(torch.erfc),
    "logaddexp": _plain(torch.logaddexp), "pow": _plain(torch.pow), "sqrt": _plain(torch.sqrt),
    "rsqrt": _plain(torch.rsqrt), "reciprocal": _plain(torch.reciprocal), "slice": _slice, "pad": _pad,
    "concat": lambda attrs, *tensors: torch.cat(tensors, attrs["axis"]), "cumulative_sum": _cumulative_sum,
    "sum": lambda attrs, x: torch.sum(x, attrs["axis"], keepdim=attrs["keepdims"], dtype=x.dtype),
    "max": _reduced(torch.amax), "min": _reduced(torch.amin), "prod": _prod, "any": _reduced(torch.any),
    "all": _reduced(torch.all), "matmul": _plain(torch.matmul), "gemm_add": _gemm_add,
    "diagonal": lambda attrs, x: torch.diagonal(x, attrs["offset"], -2, -1),
    "one_hot": lambda attrs, x: F.one_hot(x.long(), attrs["extent"]).to(dtype_of(attrs["dtype"])), "gather": _gather,
    "scatter_add": _scatter_add, "roll": lambda attrs, x: torch.roll(x, attrs["shift"], tuple(range(x.ndim))),
    "floor": _plain(torch.floor), "ceil": _plain(torch.ceil), "trunc": _plain(torch.trunc),
    "round": _plain(torch.round), "floor_divide": _divided(torch.floor_divide),
    "remainder": _divided(torch.remainder), "fmod": _divided(torch.fmod), "isnan": _plain(torch.isnan),
    "isinf": _plain(torch.isinf), "isfinite": _plain(torch.isfinite), "signbit": _plain(torch.signbit),
    "copysign": _plain(torch.copysign), "softmax": lambda attrs, x: torch.softmax(x, attrs["axis"][0]),
    "log_softmax": lambda attrs, x: torch.log_softmax(x, attrs["axis"][0]), "logsumexp": _reduced(torch.logsumexp),
    "sin": _plain(torch.sin), "cos": _plain(torch.cos), "tan": _plain(torch.tan), "asin": _plain(torch.asin),
    "acos": _plain(torch.acos), "atan": _plain(torch.atan), "sinh": _plain(torch.sinh), "cosh": _plain(torch.cosh),
    "asinh": _plain(torch.asinh), "acosh": _plain(torch.acosh), "atanh": _plain(torch.atanh),
    "hypot": _plain(torch.hypot), "atan2": _plain(torch.atan2),
}  # fmt: skip


def _unsqueezed(x: torch.Tensor, axes: tuple[int, ...]) -> torch.Tensor:
    for axis in axes:
        x = x.unsqueeze(axis)
    return x


ABSENT: dict[str, str] = {
    "placeholder": "a leaf: PyTorch has no graph to feed",
    "parameter": "a leaf: compared with torch.nn.Parameter in test_optim.py",
    "assign": "an update: compared in test_optim.py",
    "gradient": "what test_gradients compares, for every op",
    "custom_gradient": "a user's function: no values of its own",
    "rule_argument": "a leaf inside a custom_gradient",
    "check_index": "PyTorch checks an index inside the op that uses it",
    "linear_recurrence": "PyTorch has no scan with a factor",
    "random_key": "another generator, with streams",
    "run_counter": "another generator, with streams",
    "random_bits": "another generator: the bits differ by design",
    "permutation": "another generator: the order differs by design",
}
