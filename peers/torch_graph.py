"""A graph evaluated by PyTorch, node by node, by the table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from table import PEERS

from graphc.dims import Dim, Symbol, evaluate
from graphc.node import Node, Tensor
from passes.graph import topological

Array = np.ndarray[Any, Any]


class NoKernelError(Exception):
    """PyTorch has the op, but not for these dtypes."""


def to_torch(array: Array, *, differentiable: bool = False) -> torch.Tensor:
    """A torch tensor of the array; with ``differentiable``, one that gradients can be asked for."""
    tensor = torch.from_numpy(np.array(array))
    return tensor.requires_grad_() if differentiable and tensor.dtype.is_floating_point else tensor


def run(result: Tensor, known: Mapping[Tensor, torch.Tensor], extents: Mapping[Symbol, int]) -> torch.Tensor:
    """The value of ``result``, given those of placeholders."""
    found = dict(known)
    for node in topological([result.node]):
        if node.outputs[0] in found:
            continue
        if node.op.name == "check_index":
            found[node.outputs[0]] = _counted_from_front(node, found[node.inputs[0]], extents)
            continue
        if node.op.name == "gradient":
            found.update(zip(node.outputs, _gradients(node, [found[t] for t in node.inputs]), strict=True))
            continue
        attrs = {k: _numbers(v, extents) for k, v in node.attrs.items()}
        try:
            found[node.outputs[0]] = PEERS[node.op.name](attrs, *(found[t] for t in node.inputs))
        except (NotImplementedError, RuntimeError) as error:
            if "not implemented" in str(error) or "Promotion for uint" in str(error):
                raise NoKernelError(str(error).splitlines()[0]) from error
            raise
        if found[node.outputs[0]].dtype.is_floating_point and not found[node.outputs[0]].requires_grad:
            found[node.outputs[0]].requires_grad_()  # somebody may ask for a gradient with respect to it
    return found[result]


def _gradients(node: Node, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    n = node.attrs["targets"]
    ys, cotangents, xs = inputs[:n], inputs[n : 2 * n], inputs[2 * n :]
    found = torch.autograd.grad(ys, xs, cotangents, create_graph=True, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, xs, strict=True)]


def _counted_from_front(node: Node, x: torch.Tensor, extents: Mapping[Symbol, int]) -> torch.Tensor:
    """What PyTorch does inside the ops that index."""
    x = x.long()
    return torch.where(x < 0, x + evaluate(node.attrs["extent"], extents), x) if node.attrs.get("wrap") else x


def _numbers(value: Any, extents: Mapping[Symbol, int]) -> Any:
    if isinstance(value, tuple):
        return tuple(_numbers(v, extents) for v in value)
    return evaluate(value, extents) if isinstance(value, Dim) else value
