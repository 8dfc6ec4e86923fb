"""Optimisers: from a loss to the update that lowers it.

An optimiser is a recipe. ``minimize`` writes it down in the graph for some parameters; what it keeps between steps, its
slots and its count of steps, are parameters too, saved and restored with the rest.
"""

from __future__ import annotations

import itertools
import math
import numbers
import sys
import weakref
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np

from graphc import init
from graphc.dims import Extent
from graphc.dtypes import DType, is_float
from graphc.errors import GradientError, ShapeError, UpdateError
from graphc.gradients import differentiable_inputs, gradients, reaches
from graphc.nn.module import Module
from graphc.node import Node, Tensor
from graphc.ops import expm1, sqrt, square
from graphc.ops.leaf import as_tensor
from graphc.state import Update, assign, group, is_parameter, parameter
from graphc.where import capture, derived_from

Pairs: TypeAlias = Sequence[tuple[Tensor, Tensor]]
Parameters: TypeAlias = Iterable[Tensor] | Module | None

# Names must be unique in a session, and one parameter may be minimised twice. Keyed by node: tensors have no plain ==.
_names: weakref.WeakKeyDictionary[Node, defaultdict[str, itertools.count[int]]] = weakref.WeakKeyDictionary()


class Optimizer:
    """What all optimisers share. A new one is a subclass with ``updates``.

    ``learning_rate`` is a number, or a float scalar tensor: a placeholder, a parameter, a schedule computed from one.
    """

    def __init__(self, learning_rate: float | Tensor) -> None:
        self.learning_rate = self._rate(learning_rate)

    def minimize(self, loss: Tensor, params: Parameters = None) -> Update:
        """One step against the gradient of ``loss``, a float scalar: an update to fetch.

        ``params``: a list of parameters or a module; by default all that ``loss`` depends on through a differentiable
        path. Those with ``trainable=False`` are left out either way. Each call makes slots of its own.

        Raises ``GradientError`` when the loss is not a float scalar, when it does not depend on a given parameter, and
        when no parameter remains; ``UpdateError`` when something given is not a parameter.
        """
        what = f"{type(self).__name__}.minimize"
        _check_loss(loss, what)
        chosen = _reached(loss, what) if params is None else _given(loss, params, what)
        return self.apply(zip(gradients(loss, chosen), chosen, strict=True))

    def apply(self, grads_and_params: Iterable[tuple[Any, Tensor]]) -> Update:
        """One step along ``(gradient, parameter)`` pairs, for gradients that were clipped or summed first.

        Each gradient has the shape of its parameter and is converted to its dtype. Raises ``ShapeError`` when it does
        not, and ``UpdateError`` for what is no parameter, or one given twice.
        """
        # One place and role for all that is built here, so that a picture can draw it as the update that it is.
        where, _ = capture()
        with derived_from(where, "update"):
            pairs = [_checked_pair(pair, f"{type(self).__name__}.apply") for pair in grads_and_params]
            if not pairs:
                raise UpdateError(f"{type(self).__name__}.apply: no gradients were given")
            return group(*self.updates(pairs))

    def updates(self, pairs: Pairs) -> Iterable[Update]:
        """The assignments of one step for ``(gradient, parameter)`` pairs of equal shapes and dtypes."""
        raise NotImplementedError(f"{type(self).__name__} has no updates method: define updates(self, pairs)")

    def slot(self, like: Tensor, kind: str) -> Tensor:
        """A new parameter ``<like>/<kind>`` of zeros in the shape and dtype of ``like``, kept between steps."""
        return parameter(init.zeros(), like.node.attrs["shape"], like.dtype, _unique(like, kind), trainable=False)

    def counter(self, first: Tensor) -> Tensor:
        """A new count of steps, int64, starting at 0, named ``<first>/step`` after the first parameter it serves."""
        return parameter(np.int64(0), name=_unique(first, "step"), trainable=False)

    def rate(self, dtype: DType) -> float | Tensor:
        """The learning rate as it enters arithmetic in ``dtype``."""
        known = self.learning_rate
        return known.astype(dtype) if isinstance(known, Tensor) else known

    def _rate(self, value: Any) -> float | Tensor:
        if isinstance(value, Tensor):
            if value.ndim or not is_float(value.dtype):
                raise UpdateError(f"{type(self).__name__}: a learning rate is a float scalar, got {value.describe()}")
            return value
        return _number(value, f"{type(self).__name__}: learning_rate", "at least 0", lambda v: 0 <= v < math.inf)


class SGD(Optimizer):
    """Gradient descent: ``w - learning_rate * g``."""

    def updates(self, pairs: Pairs) -> Iterable[Update]:
        return [assign(w, w - self.rate(w.dtype) * g) for g, w in pairs]


class Momentum(Optimizer):
    """Gradient descent with momentum, as in PyTorch's SGD: ``v' = momentum * v + g``, then ``w - learning_rate * v'``.

    ``nesterov=True`` looks ahead: ``w - learning_rate * (g + momentum * v')`` (I. Sutskever et al., ICML 2013). The
    slot ``v`` is ``<parameter>/momentum``; it starts at 0.
    """

    def __init__(self, learning_rate: float | Tensor, momentum: float = 0.9, nesterov: bool = False) -> None:
        super().__init__(learning_rate)
        self.momentum = _fraction(momentum, "Momentum: momentum")
        self.nesterov = nesterov

    def updates(self, pairs: Pairs) -> Iterable[Update]:
        for g, w in pairs:
            velocity = self.slot(w, "momentum")
            moved = self.momentum * velocity + g
            direction = g + self.momentum * moved if self.nesterov else moved
            yield assign(velocity, moved)
            yield assign(w, w - self.rate(w.dtype) * direction)


class Adam(Optimizer):
    """Adam (D. Kingma and J. Ba, ICLR 2015, algorithm 1), in PyTorch's formula.

        m' = beta1 * m + (1 - beta1) * g          v' = beta2 * v + (1 - beta2) * g**2
        w' = w - learning_rate * (m' / (1 - beta1**t)) / (sqrt(v' / (1 - beta2**t)) + epsilon)

    ``t`` counts steps from 1. Slots: ``<parameter>/adam_m`` and ``<parameter>/adam_v``, which start at 0, and one count
    ``<first parameter>/step`` for each call of ``minimize``.
    """

    def __init__(
        self, learning_rate: float | Tensor = 1e-3, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8
    ) -> None:
        super().__init__(learning_rate)
        self.beta1 = _fraction(beta1, "Adam: beta1")
        self.beta2 = _fraction(beta2, "Adam: beta2")
        self.epsilon = _number(epsilon, "Adam: epsilon", "at least 0", lambda v: 0 <= v < math.inf)

    def updates(self, pairs: Pairs) -> Iterable[Update]:
        step = self.counter(pairs[0][1])
        count = step + 1
        yield assign(step, count)
        scalars: dict[DType, tuple[Tensor, Tensor]] = {}
        for g, w in pairs:
            if w.dtype not in scalars:
                scalars[w.dtype] = self._scalars(count.astype(w.dtype))
            rate, epsilon = scalars[w.dtype]
            m, v = self.slot(w, "adam_m"), self.slot(w, "adam_v")
            next_m = self.beta1 * m + (1 - self.beta1) * g
            next_v = self.beta2 * v + (1 - self.beta2) * square(g)
            yield assign(m, next_m)
            yield assign(v, next_v)
            yield assign(w, w - rate * next_m / (sqrt(next_v) + epsilon))

    def _scalars(self, count: Tensor) -> tuple[Tensor, Tensor]:
        """The learning rate and epsilon with the bias corrections in them, so that elements need none.

        Both sides of the quotient are multiplied by ``sqrt(1 - beta2**t)``.
        """
        first, second = _correction(self.beta1, count), sqrt(_correction(self.beta2, count))
        return self.rate(count.dtype) * second / first, self.epsilon * second


def _correction(beta: float, count: Tensor) -> Tensor:
    """``1 - beta**count`` to a few rounding errors: beta**count alone would round near 1 and leave few digits.

    The logarithm is taken in double precision; the smallest positive number stands for a beta of 0.
    """
    return -expm1(count * math.log(max(beta, sys.float_info.min)))


def _check_loss(loss: Any, what: str) -> None:
    if not isinstance(loss, Tensor):
        raise GradientError(f"{what}: the loss must be a tensor, got {type(loss).__name__}")
    if not is_float(loss.dtype):
        raise GradientError(f"{what}: the loss must be float, got {loss.describe()}")
    if loss.ndim:
        raise GradientError(f"{what}: the loss must be a scalar, got {loss.describe()}; reduce it (.mean(), .sum())")


def _reached(loss: Tensor, what: str) -> list[Tensor]:
    """Trainable parameters that a gradient of ``loss`` reaches, in the order in which they were made."""
    seen: set[Node] = {loss.node}
    pending = [loss]
    found: list[Tensor] = []
    while pending:
        tensor = pending.pop()
        if is_parameter(tensor):
            found.append(tensor)
        for source in differentiable_inputs(tensor.node):
            if source.node not in seen:
                seen.add(source.node)
                pending.append(source)
    chosen = [tensor for tensor in found if tensor.node.attrs["trainable"]]
    if not chosen:
        why = f"; those it depends on have trainable=False: {_names_of(found)}" if found else ""
        raise GradientError(f"{what}: the loss depends on no trainable parameter{why}\n  loss: {loss.describe()}")
    return sorted(chosen, key=lambda tensor: tensor.node.serial)


def _given(loss: Tensor, params: Iterable[Tensor] | Module, what: str) -> list[Tensor]:
    if isinstance(params, Tensor):
        raise UpdateError(f"{what}: params must be a list or a module, got one tensor; write [{params.name}]")
    listed = params.parameters() if isinstance(params, Module) else list(params)
    for tensor in listed:
        _check_parameter(tensor, what)
    chosen = [tensor for tensor in dict.fromkeys(listed) if tensor.node.attrs["trainable"]]
    if not chosen:
        raise GradientError(f"{what}: no trainable parameter was given" + (f": {_names_of(listed)}" if listed else ""))
    reached = reaches([loss], chosen)
    missing = "".join(f"\n    {tensor.describe()}" for tensor in chosen if tensor not in reached)
    if missing:
        raise GradientError(
            f"{what}: the loss does not depend, through a differentiable path, on:{missing}\n"
            f"  loss: {loss.describe()}\n  leave these out, or give no params to take all that it depends on"
        )
    return chosen


def _checked_pair(pair: Any, what: str) -> tuple[Tensor, Tensor]:
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


def _names_of(tensors: Iterable[Tensor]) -> str:
    return ", ".join(tensor.name for tensor in tensors)


def _unique(like: Tensor, kind: str) -> str:
    counts = _names.setdefault(like.node, defaultdict(lambda: itertools.count(1)))
    number = next(counts[kind])
    return f"{like.name}/{kind}" if number == 1 else f"{like.name}/{kind}_{number}"


def _fraction(value: Any, what: str) -> float:
    return _number(value, what, "at least 0 and less than 1", lambda v: 0 <= v < 1)


def _number(value: Any, what: str, rule: str, holds: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not holds(float(value)):
        raise UpdateError(f"{what} must be a number, {rule}, got {value!r}")
    return float(value)
