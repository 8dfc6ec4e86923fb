"""What all optimisers share: ``minimize``, ``apply``, and the step that they write down."""

from __future__ import annotations

import functools
import itertools
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec, TypeAlias

import numpy as np

from graphc import init
from graphc.dtypes import DType, is_float
from graphc.errors import UpdateError
from graphc.gradients import gradients
from graphc.hints import SETTINGS, missing
from graphc.nn.module import Module
from graphc.node import Node, Tensor
from graphc.optim.clipping import clip_by_norm, clip_by_value
from graphc.optim.hyperparameters import Hyperparameter, in_dtype, not_negative, positive
from graphc.optim.targets import check_loss, checked_pair, given, reached
from graphc.state import Update, assign, group, parameter
from graphc.where import capture, derived_from

Pairs: TypeAlias = Sequence[tuple[Tensor, Tensor]]
Parameters: TypeAlias = Iterable[Tensor] | Module | None
LearningRate: TypeAlias = float | Tensor | Callable[[Tensor], Tensor]
P = ParamSpec("P")

# Names must be unique in a session, and one parameter may be minimised twice. Keyed by node: tensors have no plain ==.
_names: weakref.WeakKeyDictionary[Node, defaultdict[str, itertools.count[int]]] = weakref.WeakKeyDictionary()


def _in_our_words(init: Callable[Concatenate[Optimizer, P], None]) -> Callable[Concatenate[Optimizer, P], None]:
    """``init`` with what other libraries write in its place answered first."""

    @functools.wraps(init)
    def checked(self: Optimizer, /, *args: P.args, **kwargs: P.kwargs) -> None:
        name = type(self).__name__
        if args and isinstance(args[0], (list, tuple, Module)):
            raise UpdateError(
                f"{name}: the first argument is the learning rate; parameters go to minimize(loss, params)"
            )
        for word in kwargs:
            if word in SETTINGS:
                raise TypeError(f"{name}: {SETTINGS[word]} (not {word}=)")
        init(self, *args, **kwargs)

    return checked


class Optimizer:
    """What all optimisers share. A new one is a subclass with ``updates``.

    ``learning_rate`` is a number, a float scalar tensor (a placeholder, a parameter), or a schedule: a function of the
    steps done so far, an int64 scalar tensor, such as ``graphc.optim.schedules`` makes. Other hyperparameters are
    numbers or float scalar tensors.

    ``clip_norm`` scales the gradients of a step down to this norm together, ``clip_value`` bounds each element (see
    ``clip_by_norm`` and ``clip_by_value``). After that ``weight_decay`` adds ``weight_decay * w`` to the gradient of
    every parameter ``w``, except where an optimiser says otherwise.
    """

    @_in_our_words
    def __init__(
        self,
        learning_rate: LearningRate,
        *,
        weight_decay: Hyperparameter = 0.0,
        clip_norm: Hyperparameter | None = None,
        clip_value: Hyperparameter | None = None,
    ) -> None:
        name = type(self).__name__
        if isinstance(learning_rate, Tensor) or not callable(learning_rate):
            learning_rate = not_negative(learning_rate, f"{name}: learning_rate")
        if clip_norm is not None and clip_value is not None:
            raise UpdateError(f"{name}: give clip_norm or clip_value, not both; clip by hand and use apply")
        self.learning_rate = learning_rate
        self.weight_decay = not_negative(weight_decay, f"{name}: weight_decay")
        self.clip_norm = None if clip_norm is None else positive(clip_norm, f"{name}: clip_norm")
        self.clip_value = None if clip_value is None else positive(clip_value, f"{name}: clip_value")

    def minimize(self, loss: Tensor, params: Parameters = None) -> Update:
        """One step against the gradient of ``loss``, a float scalar: an update to fetch.

        ``params``: a list of parameters or a module; by default all that ``loss`` depends on through a differentiable
        path. Those with ``trainable=False`` are left out either way, and so are a module's that are not float. Each
        call makes slots of its own.

        Raises ``GradientError`` when the loss is not a float scalar, when it does not depend on a given parameter, and
        when no parameter remains; ``UpdateError`` when something given is not a parameter.
        """
        what = f"{type(self).__name__}.minimize"
        check_loss(loss, what)
        chosen = reached(loss, what) if params is None else given(loss, params, what)
        return self.apply(zip(gradients(loss, chosen), chosen, strict=True))

    def apply(self, grads_and_params: Iterable[tuple[Any, Tensor]]) -> Update:
        """One step along ``(gradient, parameter)`` pairs, for gradients that were changed or summed first.

        Each gradient has the shape of its parameter and is converted to its dtype. Raises ``ShapeError`` when it does
        not, and ``UpdateError`` for what is no parameter, or one given twice.
        """
        # One place and role for all that is built here, so that a picture can draw it as the update that it is.
        where, _ = capture()
        with derived_from(where, "update"):
            pairs = [checked_pair(pair, f"{type(self).__name__}.apply") for pair in grads_and_params]
            if not pairs:
                raise UpdateError(f"{type(self).__name__}.apply: no gradients were given")
            step = Step(self, pairs[0][1])
            updates = [*self.updates(step, self._clipped(pairs))]
            return group(*step.counted(), *updates)

    def updates(self, step: Step, pairs: Pairs) -> Iterable[Update]:
        """The assignments of one step for ``(gradient, parameter)`` pairs of equal shapes and dtypes."""
        raise NotImplementedError(f"{type(self).__name__} has no updates method: define updates(self, step, pairs)")

    def penalised(self, g: Tensor, w: Tensor) -> Tensor:
        """The gradient with the weight decay added: that of ``loss + weight_decay / 2 * sum(w**2)``."""
        return g if self._decays_nothing() else g + in_dtype(self.weight_decay, w.dtype) * w

    def shrunk(self, step: Step, w: Tensor) -> Tensor:
        """The parameter with the weight decay taken off, apart from its gradient:
        ``w * (1 - learning_rate * weight_decay)``.
        """
        return w if self._decays_nothing() else w * (1 - step.rate(w.dtype) * in_dtype(self.weight_decay, w.dtype))

    if not TYPE_CHECKING:  # a type checker shall find fault with unknown names itself

        def __getattr__(self, name: str) -> NoReturn:
            raise missing(self, "Optimizer", name, dir(type(self)))

    def _decays_nothing(self) -> bool:
        return not isinstance(self.weight_decay, Tensor) and self.weight_decay == 0

    def _clipped(self, pairs: Pairs) -> Pairs:
        grads, params = zip(*pairs, strict=True)
        if self.clip_norm is not None:
            grads = tuple(clip_by_norm(grads, self.clip_norm))
        if self.clip_value is not None:
            grads = tuple(clip_by_value(grads, self.clip_value))
        return [*zip(grads, params, strict=True)]


class Step:
    """One step as an optimiser writes it down: its learning rate, its number, and what is kept for the next."""

    def __init__(self, optimizer: Optimizer, first: Tensor) -> None:
        self._optimizer = optimizer
        self._first = first
        self._rates: dict[DType, Hyperparameter] = {}

    @cached_property
    def done(self) -> Tensor:
        """How many steps were made before this one: a parameter, int64, named ``<first>/step`` after the first
        parameter that the step serves.
        """
        return parameter(np.int64(0), name=_unique(self._first, "step"), trainable=False)

    @cached_property
    def number(self) -> Tensor:
        """The number of this step, counted from 1, int64."""
        return self.done + 1

    def rate(self, dtype: DType) -> Hyperparameter:
        """The learning rate as it enters arithmetic in ``dtype``."""
        if dtype not in self._rates:
            self._rates[dtype] = in_dtype(self._rate, dtype)
        return self._rates[dtype]

    def slot(self, like: Tensor, kind: str, fill: float = 0.0) -> Tensor:
        """A new parameter ``<like>/<kind>`` full of ``fill``, in the shape and dtype of ``like``, kept between
        steps.
        """
        attrs = like.node.attrs
        return parameter(init.constant(fill), attrs["shape"], like.dtype, _unique(like, kind), trainable=False)

    def counted(self) -> list[Update]:
        """The update of ``done``, if anything needs it."""
        return [assign(self.done, self.number)] if "done" in self.__dict__ else []

    @cached_property
    def _rate(self) -> Hyperparameter:
        known = self._optimizer.learning_rate
        if isinstance(known, Tensor) or not callable(known):
            return known
        found = known(self.done)
        if not isinstance(found, Tensor) or found.ndim or not is_float(found.dtype):
            shown = found.describe() if isinstance(found, Tensor) else repr(found)
            raise UpdateError(
                f"{type(self._optimizer).__name__}: a schedule must return a float scalar tensor, got {shown}"
            )
        return found


def _unique(like: Tensor, kind: str) -> str:
    counts = _names.setdefault(like.node, defaultdict(lambda: itertools.count(1)))
    number = next(counts[kind])
    return f"{like.name}/{kind}" if number == 1 else f"{like.name}/{kind}_{number}"
