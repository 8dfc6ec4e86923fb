"""Which parameters a step updates: those that a loss reaches, or those that the user names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphc.dims import Extent
from graphc.dtypes import is_float
from graphc.errors import GradientError, ShapeError, UpdateError
from graphc.gradients import reaches, upstream
from graphc.nn.module import Module
from graphc.node import Node, Tensor
from graphc.ops.leaf import as_tensor
from graphc.state import is_parameter


def check_loss(loss: Any, what: str) -> None:
    """``GradientError`` unless ``loss`` is a float scalar."""
    if not isinstance(loss, Tensor):
        raise GradientError(f"{what}: the loss must be a tensor, got {type(loss).__name__}")
    if not is_float(loss.dtype):
        raise GradientError(f"{what}: the loss must be float, got {loss.describe()}")
    if loss.ndim:
        raise GradientError(f"{what}: the loss must be a scalar, got {loss.describe()}; reduce it (.mean(), .sum())")


def reached(loss: Tensor, what: str) -> list[Tensor]:
    """Trainable parameters that a gradient of ``loss`` reaches, in the order in which they were made."""
    found = {tensor for tensor in upstream([loss]) if is_parameter(tensor)}
    chosen = [tensor for tensor in found if tensor.node.attrs["trainable"]]
    if not chosen:
        frozen = _names(sorted(found, key=_serial))
        integers = _names(_integer_parameters(loss))
        why = f"; those it depends on have trainable=False: {frozen}" if frozen else ""
        why += f"; parameters that are not float have no gradient: {integers}" if integers else ""
        raise GradientError(f"{what}: the loss depends on no trainable parameter{why}\n  loss: {loss.describe()}")
    return sorted(chosen, key=_serial)


def given(loss: Tensor, params: Iterable[Tensor] | Module, what: str) -> list[Tensor]:
    """The trainable parameters among ``params``, each once, all of which ``loss`` must depend on."""
    if isinstance(params, Tensor):
        raise UpdateError(f"{what}: params must be a list or a module, got one tensor; write [{params.name}]")
    if isinstance(params, Module):
        listed = [tensor for tensor in params.parameters() if is_float(tensor.dtype)]
    else:
        listed = list(params)
    for tensor in listed:
        _check_parameter(tensor, what)
    chosen = [tensor for tensor in dict.fromkeys(listed) if tensor.node.attrs["trainable"]]
    if not chosen:
        raise GradientError(f"{what}: no trainable parameter was given" + (f": {_names(listed)}" if listed else ""))
    found = reaches([loss], chosen)
    missing = "".join(f"\n    {tensor.describe()}" for tensor in chosen if tensor not in found)
    if missing:
        raise GradientError(
            f"{what}: the loss does not depend, through a differentiable path, on:{missing}\n"
            f"  loss: {loss.describe()}\n  leave these out, or give no params to take all that it depends on"
        )
    return chosen


def checked_pair(pair: Any, what: str) -> tuple[Tensor, Tensor]:
    """A gradient, in the dtype of its parameter, and the parameter."""
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise UpdateError(f"{what}: expected (gradient, parameter) pairs, got {pair!r}")
    _check_parameter(pair[1], what)
    target: Tensor = pair[1]
    gradient = as_tensor(pair[0], f"{what}: gradient").astype(target.dtype)
    if not _fits(gradient.shape, target.shape):
        raise ShapeError(
            f"{what}: a gradient must have the shape of its parameter"
            f"\n    {gradient.describe()}\n    {target.describe()}"
        )
    return gradient, target


def _fits(found: tuple[Extent, ...], wanted: tuple[Extent, ...]) -> bool:
    """Whether the shapes can be equal; what only the data can tell is left to ``assign``."""
    if len(found) != len(wanted):
        return False
    return all(a == b or not isinstance(a, int) for a, b in zip(found, wanted, strict=True))


def _check_parameter(tensor: Any, what: str) -> None:
    if not is_parameter(tensor):
        shown = tensor.describe() if isinstance(tensor, Tensor) else repr(tensor)
        raise UpdateError(f"{what}: only parameters can be updated, got {shown}")
    if tensor.node.attrs["trainable"] and not is_float(tensor.dtype):
        raise UpdateError(f"{what}: {tensor.describe()} is not float and has no gradient; make it with trainable=False")


def _integer_parameters(loss: Tensor) -> list[Tensor]:
    """Trainable parameters that the value of ``loss`` depends on, and no gradient of it."""
    seen: set[Node] = set()
    found: list[Tensor] = []
    pending = [loss.node]
    while pending:
        node = pending.pop()
        if node not in seen:
            seen.add(node)
            pending += [tensor.node for tensor in node.inputs]
            found += [t for t in node.outputs if is_parameter(t) and node.attrs["trainable"] and not is_float(t.dtype)]
    return sorted(found, key=_serial)


def _serial(tensor: Tensor) -> int:
    return tensor.node.serial


def _names(tensors: Iterable[Tensor]) -> str:
    return ", ".join(tensor.name for tensor in tensors)
