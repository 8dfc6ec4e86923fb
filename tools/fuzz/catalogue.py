"""What can be drawn: every op of the registry, and every public function that takes tensors.

Nothing is listed by hand. An op is built by one of its samples, or by the public function of its name with arguments
drawn by what its signature calls them; functions that are no ops of their own (``mean``, ``argmax``, a loss) are found
in the public modules.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import graphc as gc
from graphc.node import Tensor
from graphc.opdef import OPS, Kind, OpDef

# Neither ops of their own nor worth a line: leaves, and what the program as a whole decides.
_NOT_LINES = {
    "constant", "placeholder", "parameter", "assign", "group", "gradients", "dim", "arange", "extent_value",
    "show_config", "custom_gradient",
}  # fmt: skip
# Names of parameters that hold tensors although their annotation does not say so.
_PLAIN = {"name", "out", "where", "reduction"}


@dataclass(frozen=True)
class Entry:
    """Something that makes tensors of tensors. ``op`` is the row that says what it takes, if it is one."""

    name: str
    op: OpDef | None
    function: Callable[..., Any] | None

    @property
    def samples(self) -> tuple[Callable[..., Any], ...]:
        return self.op.samples if self.op is not None else ()


def entries(only: Collection[str] = ()) -> list[Entry]:
    """All entries, or those of some names, in an order that does not depend on the process."""
    found = {"getitem": Entry("getitem", None, getattr(Tensor, "__getitem__", None))}
    found |= {
        name: Entry(name, op, _public(name))
        for name, op in OPS.items()
        if op.kind not in (Kind.LEAF, Kind.TRANSFORM, Kind.UPDATE)
    }
    for module in _modules():
        for name in getattr(module, "__all__", ()):
            function = getattr(module, name, None)
            if (
                name not in found
                and name not in _NOT_LINES
                and inspect.isfunction(function)
                and takes_tensors(function)
            ):
                found[name] = Entry(name, None, function)
    return [found[name] for name in sorted(found) if not only or name in only]


def _modules() -> list[ModuleType]:
    candidates = [gc, gc.nn, getattr(gc, "random", None), getattr(gc, "linalg", None)]
    return [m for m in candidates if isinstance(m, ModuleType)]


def _public(name: str) -> Callable[..., Any] | None:
    for module in _modules():
        for spelling in (name, f"{name}_"):
            found = getattr(module, spelling, None)
            if inspect.isfunction(found) and spelling in getattr(module, "__all__", ()):
                return found
    return None


@dataclass(frozen=True)
class Parameter:
    """One parameter of a public function: a tensor, several tensors, or something else by its name. ``spread`` says
    that the several are arguments of their own.
    """

    name: str
    role: str  # "tensor", "tensors", "argument"
    annotation: str
    optional: bool
    default: Any
    spread: bool


def parameters(function: Callable[..., Any]) -> list[Parameter]:
    """What a public function takes."""
    return list(_parameters(function))


def _parameters(function: Callable[..., Any]) -> Iterator[Parameter]:
    for p in inspect.signature(function).parameters.values():
        annotation = str(p.annotation)
        optional = p.default is not p.empty
        role = "argument"
        if p.kind is p.VAR_POSITIONAL or "Sequence[Tensor" in annotation or "Sequence[Any" in annotation:
            role = "tensors" if p.name not in ("shape", "axes", "axis") else "argument"
        elif p.name in _PLAIN:
            role = "argument"
        elif annotation.startswith("Tensor") or (annotation == "Any" and not optional and p.name not in ARGUMENT_NAMES):
            role = "tensor"
        if p.kind is not p.VAR_KEYWORD:
            yield Parameter(p.name, role, annotation, optional, p.default, p.kind is p.VAR_POSITIONAL)


# Names that stand for something else than a tensor wherever they are annotated Any.
ARGUMENT_NAMES = {
    "shape", "extent", "dtype", "axis", "axes", "keepdims", "value", "repetitions", "repeats", "shift", "k", "diagonal",
    "source", "destination", "correction", "num_classes", "low", "high", "mean", "std", "p", "seed", "alpha",
}  # fmt: skip


def takes_tensors(function: Callable[..., Any]) -> bool:
    """Whether a public function takes a tensor, or makes one of a shape."""
    return any(p.role != "argument" or p.name == "shape" for p in parameters(function))
