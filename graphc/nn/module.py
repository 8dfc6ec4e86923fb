"""``Module``: parameters and smaller modules kept as attributes, and the function that uses them."""

from __future__ import annotations

import contextvars
import copy
import itertools
import textwrap
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from graphc.dtypes import DTypeLike, as_dtype, is_float
from graphc.errors import ArgumentError, DTypeError
from graphc.node import Node, Tensor
from graphc.state import Update, group, is_parameter, parameter
from graphc.where import capture, derived_from

M = TypeVar("M", bound="Module")
_training: contextvars.ContextVar[bool | None] = contextvars.ContextVar("graphc_training", default=None)

_layers: defaultdict[str, itertools.count[int]] = defaultdict(lambda: itertools.count(1))
_copies: defaultdict[str, itertools.count[int]] = defaultdict(lambda: itertools.count(1))


class Module:
    """A part of a network. Subclass it, keep parameters and modules as attributes, and define ``forward``.

        class Scale(graphc.nn.Module):
            def __init__(self, features):
                self.factor = graphc.parameter(graphc.init.ones(), shape=(features,), name="factor")

            def forward(self, x):
                return x * self.factor

    Calling the module calls ``forward``; every call builds nodes that share the module's parameters. Attributes are
    read when they are asked for, so there is nothing to initialise: ``super().__init__()`` may be called or left out.
    Lists, tuples and dicts of modules or parameters count as attributes do. A tensor that is no parameter is a plain
    attribute.

    Some layers compute one thing while they learn and another when they predict. The graph of each is written down
    once, and the call says which it is: ``model(x, training=True)``. Inside, ``self.training`` tells every module.

    ``copy.deepcopy`` gives a module with parameters of its own: the same shapes, dtypes and initialisers under new
    names (``linear_1.weight`` becomes ``linear_1_copy1.weight``). A parameter used twice in the module is used twice
    in the copy.
    """

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes; defined by the subclass."""
        raise NotImplementedError(
            f"{type(self).__name__} has no forward method: define forward(self, x) in the class and return the result"
        )

    def __call__(self, *args: Any, training: bool | None = None, **kwargs: Any) -> Any:
        if training is None:
            return self.forward(*args, **kwargs)
        if not isinstance(training, bool):
            raise ArgumentError(f"{type(self).__name__}: training must be True or False, got {training!r}")
        token = _training.set(training)
        try:
            return self.forward(*args, **kwargs)
        finally:
            _training.reset(token)

    @property
    def training(self) -> bool:
        """What ``training=`` said in the call of this module, or of the nearest around it; ``ArgumentError`` if nobody
        said.
        """
        said = _training.get()
        if said is None:
            raise ArgumentError(
                f"{type(self).__name__} computes one thing while it learns and another when it predicts: "
                f"call the model with training=True or training=False, as in model(x, training=True)"
            )
        return said

    def updates(self, loss: Tensor) -> Update:
        """What the layers in this module keep of the data that ``loss`` is made of, such as the running mean of a
        batch norm: an update to run with the optimiser's, ``graphc.group(train, model.updates(loss))``. It is empty
        when no layer keeps anything.
        """
        used = _ancestors(loss)
        where, _ = capture()
        with derived_from(where, "update"):
            return group(*(update for module in self.modules() for update in module.own_updates(used)))

    def own_updates(self, used: set[Node]) -> Iterable[Update]:
        """Updates of this module alone, for the nodes that were ``used``; defined by layers that keep something."""
        return ()

    def parameters(self) -> list[Tensor]:
        """All parameters of this module and those in it, each once, in the order of the attributes."""
        return [tensor for _, tensor in self.named_parameters()]

    def named_parameters(self) -> list[tuple[str, Tensor]]:
        """``(path, parameter)`` pairs; a path is made of attribute names and positions, such as ``"layers.0.weight"``.

        A parameter found twice is listed under its first path.
        """
        return [(path, found) for path, found in self._walk() if isinstance(found, Tensor)]

    def modules(self) -> list[Module]:
        """This module and all modules in it, each once, outer before inner."""
        return [found for _, found in self._walk() if isinstance(found, Module)]

    def extra_repr(self) -> str:
        """The arguments that ``repr`` shows; when there are any, the module's own parameters are not listed."""
        return ""

    def __repr__(self) -> str:
        return _tree(self, ())

    def __deepcopy__(self: M, memo: dict[int, Any]) -> M:
        # A tensor is its own deep copy. Parameters put into the memo beforehand are found there instead.
        for tensor in self.parameters():
            if id(tensor) not in memo:
                memo[id(tensor)] = _twin(tensor)
        twin = memo[id(self)] = object.__new__(type(self))
        twin.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return twin

    def _members(self) -> Iterable[tuple[str, Any]]:
        return vars(self).items()

    def _direct(self) -> Iterator[tuple[str, Any]]:
        """Named values of this module alone, with lists, tuples and dicts taken apart."""
        pending = list(self._members())[::-1]
        opened: set[int] = set()
        while pending:
            name, value = pending.pop()
            if not isinstance(value, (list, tuple, dict)):
                yield name, value
            elif id(value) not in opened:
                opened.add(id(value))
                inner = value.items() if isinstance(value, dict) else enumerate(value)
                pending += [(f"{name}.{key}", item) for key, item in inner][::-1]

    def _walk(self) -> Iterator[tuple[str, Module | Tensor]]:
        seen: set[int] = set()
        pending: list[tuple[str, Module | Tensor]] = [("", self)]
        while pending:
            path, found = pending.pop()
            if id(found) in seen:
                continue
            seen.add(id(found))
            yield path, found
            if isinstance(found, Module):
                pending += [
                    (f"{path}.{name}" if path else name, value)
                    for name, value in found._direct()
                    if isinstance(value, Module) or is_parameter(value)
                ][::-1]


def _ancestors(tensor: Tensor) -> set[Node]:
    """The nodes that a tensor is made of."""
    found = {tensor.node}
    pending = [tensor.node]
    while pending:
        new = {source.node for source in pending.pop().inputs} - found
        found |= new
        pending += new
    return found


def layer_name(layer: Module, name: str | None) -> str:
    """``name``, or one made of the layer's class and a number, such as ``linear_1``."""
    if name is not None:
        return name
    kind = type(layer).__name__.lower()
    return f"{kind}_{next(_layers[kind])}"


def check_float(dtype: DTypeLike, what: str) -> None:
    """``DTypeError`` for parameters that would have no gradient."""
    if not is_float(as_dtype(dtype)):
        raise DTypeError(f"{what}: dtype must be float32 or float64, got {as_dtype(dtype)}")


def _twin(tensor: Tensor) -> Tensor:
    """A new parameter like ``tensor``: the same initial value or initialiser, its own name."""
    attrs, name = tensor.node.attrs, tensor.node.name
    if name is not None:
        owner, dot, leaf = name.rpartition(".")
        number = next(_copies[name])
        name = f"{owner}_copy{number}.{leaf}" if dot else f"{leaf}_copy{number}"
    # The first frame outside graphc is copy.py's; the original's line says more.
    with derived_from(tensor.node.where, tensor.node.role):
        return parameter(attrs["initial"], attrs["shape"], attrs["dtype"], name, trainable=attrs["trainable"])


def _tree(module: Module, above: tuple[Module, ...]) -> str:
    title, extra = type(module).__name__, module.extra_repr()
    if any(module is outer for outer in above):
        return f"{title}(...)"
    rows = []
    for name, value in module._direct():
        if isinstance(value, Module):
            rows.append(f"{name}: {_tree(value, (*above, module))}")
        elif is_parameter(value):
            if not extra:
                rows.append(f"{name}: {value.type}")
        elif callable(value):
            rows.append(f"{name}: {getattr(value, '__name__', repr(value))}")
    body = textwrap.indent("\n".join(rows), "  ")
    return f"{title}({extra}\n{body}\n)" if rows else f"{title}({extra})"
