"""Gradients, updates and optimisers of a random program."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import graphc as gc
from fuzz.case import is_static
from graphc import optim
from graphc.errors import GraphcError
from graphc.gradients import GRADIENT
from graphc.node import Tensor
from graphc.state import Update
from passes.gradient import expand_gradients
from passes.graph import Graph

if TYPE_CHECKING:
    from fuzz.drawing import Drawing

MOST_GRADIENTS = 4
MOST_EXPANDED = 250  # nodes, with gradients written out


def gradient(d: Drawing) -> None:
    """Derivatives of a scalar, or of anything with cotangents, for a few tensors: leaves, results, and gradients."""
    if d.gradients >= MOST_GRADIENTS:
        return
    floats = [t for t in d.tensors if t.dtype.kind == "f"]
    made = [t for t in floats if t.node.inputs]
    if not made:
        return
    second = [t for t in made if t.node.op is GRADIENT]
    y = d.pick(second) if second and d.chance(40) else d.pick(made[-4:] if d.chance(60) else made)
    xs = list(dict.fromkeys(d.pick(floats) for _ in range(d.pick((1, 2, 3)))))
    if d.chance(35):
        ys = [y] if d.chance(70) else [y, d.pick(made)]
        found = gc.gradients(ys, xs, [d.like(t.shape, "f", t.dtype) for t in ys], unreachable="zero")
    else:
        found = gc.gradients(loss(d, y), xs, unreachable="zero")
    if affordable(found):
        d.gradients += 1
        d.tensors += [t for t in found if t.node.op is GRADIENT or d.chance(10)]


def loss(d: Drawing, y: Tensor) -> Tensor:
    """A scalar made of ``y``."""
    form = d.pick((gc.sum, gc.mean, lambda t: gc.sum(gc.square(t)), lambda t: gc.sum(gc.tanh(t))))
    found: Tensor = y if y.ndim == 0 and d.chance(50) else form(y)
    return found


def affordable(tensors: list[Tensor]) -> bool:
    """Whether the gradients do not make the program too large to compile in a moment."""
    return len(expand_gradients(Graph(tuple(tensors))).nodes) <= MOST_EXPANDED


def updates(d: Drawing) -> Update | None:
    """New values for some parameters: an optimiser's, or what is there in their shape and dtype."""
    chosen: dict[Tensor, Update] = {}
    if d.chance(50):
        step = optimised(d)
        if step is not None:
            chosen.update((a.inputs[0], Update((a,))) for a in step.assigns)
    for p in d.parameters:
        if p in chosen or not d.chance(65):
            continue
        try:
            value = new_value(d, p)
            if value is not None:
                chosen[p] = gc.assign(p, value)
        except GraphcError:
            d.refused += 1
    return gc.group(*chosen.values()) if chosen else None


def new_value(d: Drawing, p: Tensor) -> Any:
    """Something to write into a parameter."""
    same = d.existing(lambda t: t.dtype == p.dtype and t.ndim == p.ndim and t.shape == p.shape)
    fits = d.existing(lambda t: t.dtype == p.dtype and is_static(t.shape) and fills(t, p))
    v = same if same is not None and d.chance(60) else fits
    if v is None or (p.dtype.kind != "b" and d.chance(5)):
        return 1
    if p.dtype.kind == "b":
        return v if v.shape == p.shape else None
    forms = [lambda: p - v, lambda: v + p * v, lambda: p - v * 2]
    if p.dtype.kind == "f":
        forms.append(lambda: p - 0.1 * v)
    if v.shape == p.shape:
        forms.append(lambda: v)
    value = d.pick(forms)()
    d.tensors.append(value)
    return value


def fills(t: Tensor, p: Tensor) -> bool:
    return t.ndim <= p.ndim and all(a in (1, b) for a, b in zip(t.shape[::-1], p.shape[::-1], strict=False))


def custom(d: Drawing) -> None:
    """A function with a derivative of its own, for which a gradient may ask later."""
    x = d.tensor("f")
    y = d.partner(x, "f", x.dtype)
    forms = (
        (lambda a, b: gc.tanh(a) * b, lambda g, out, a, b: (g * out, None)),
        (lambda a, b: gc.round(a) + b, lambda g, out, a, b: (like(g, a), like(g * a, b))),
        (lambda a, b: (a * 2, gc.exp(b)), lambda g, out, a, b: (like(g[0], a), like(g[1] * out[1], b))),
    )
    forward, rule = d.pick(forms)
    made = gc.custom_gradient(forward, rule)(x, y)
    d.tensors += made if isinstance(made, tuple) else [made]


def like(g: Tensor, x: Tensor) -> Tensor:
    """A cotangent in the shape of ``x``, of whatever was computed."""
    return gc.broadcast_to(gc.sum(g), x.shape)


def optimisers() -> list[type[optim.Optimizer]]:
    """Every public optimiser."""
    found = [v for v in vars(optim).values() if inspect.isclass(v) and issubclass(v, optim.Optimizer)]
    return sorted((c for c in found if c is not optim.Optimizer), key=lambda c: c.__name__)


def rate(d: Drawing) -> Any:
    """A learning rate: a number, a tensor, or a schedule."""
    if d.chance(60):
        return d.pick((0.1, 1e-3, 1.0))
    known = optim.schedules
    schedules = (
        lambda: known.step_decay(0.1, 2), lambda: known.exponential(0.1, 0.9), lambda: known.cosine(0.1, 3),
        lambda: known.warmup(2, 0.1), lambda: known.warmup(2, known.cosine(0.1, 2)),
    )  # fmt: skip
    return d.pick(schedules)() if d.chance(60) else d.leaf("float32", ())


def optimised(d: Drawing) -> Update | None:
    """One step of an optimiser, with its flags and options at random."""
    y = d.existing(lambda t: t.dtype.kind == "f" and bool(t.node.inputs))
    if y is None:
        return None
    kind = d.pick(optimisers())
    known = inspect.signature(kind).parameters.values()
    options: dict[str, Any] = {p.name: d.chance(50) for p in known if isinstance(p.default, bool)}
    options |= d.pick(({}, {"weight_decay": 0.01}, {"clip_norm": 1.0}, {"clip_value": 0.5}, {}))
    try:
        step = kind(rate(d), **options).minimize(loss(d, y))
    except GraphcError:
        d.refused += 1
        return None
    return step if affordable([a.inputs[1] for a in step.assigns]) else None
