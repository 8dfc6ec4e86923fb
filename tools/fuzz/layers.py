"""Programs as users write them most: layers one upon another, a loss, and an optimiser that changes their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import graphc as gc
from fuzz.requests import loss, optimisers
from fuzz.values import Source
from graphc import optim
from graphc.dims import Extent, dim
from graphc.errors import GraphcError
from graphc.node import Tensor
from graphc.state import Update

if TYPE_CHECKING:
    from fuzz.drawing import Drawing

ROWS: tuple[Extent, ...] = (dim("n"), dim("n"), 8, 16, 24)
WIDTHS = (4, 8, 8, 12, 17)
MOST_LAYERS = 12


class Layers:
    """The state of one such program: hidden values of the same shape, from which the next layer takes two."""

    def __init__(self, d: Drawing) -> None:
        self.d = d
        self.rows = d.pick(ROWS)
        self.width = d.pick(WIDTHS)
        self.dtype = np.dtype(d.pick(("float32", "float64")))
        self.parameters: list[Tensor] = []
        fixed = self.rows if isinstance(self.rows, int) else 1  # how many rows there are at least
        self.positions = self.fed("int64", (self.rows,), -fixed, fixed - 1, bounded=True)
        self.hidden = [self.fed(self.dtype, (self.rows, self.width), -1, 1)]
        self.square = self.weight(self.width, self.width)
        self.aside = self.fed(self.dtype, (dim("m"), self.width), -1, 1)  # of other rows: numbers come of it

    def fed(self, dtype: Any, shape: tuple[Extent, ...], low: float, high: float, *, bounded: bool = False) -> Tensor:
        """A new placeholder."""
        tensor = gc.placeholder(shape, dtype)
        self.d.sources[tensor] = Source(shape, tensor.dtype, low, high, bounded)
        return self.d.known(tensor)

    def weight(self, *shape: int) -> Tensor:
        """A new parameter."""
        scale = 1.0 / np.sqrt(shape[0])
        made = gc.parameter((self.d.values.uniform(-1, 1, shape) * scale).astype(self.dtype))
        self.parameters.append(made)
        self.d.parameters.append(made)
        return self.d.known(made)

    def layer(self) -> Tensor:
        """The next layer's values, from those of one of the last and of any."""
        d, w = self.d, self.width
        h, g = d.pick(self.hidden[-3:]), d.pick(self.hidden)
        turned = gc.matrix_transpose
        forms = (
            lambda: h @ self.weight(w, w) + self.weight(w),
            lambda: h @ self.weight(w, w) + self.weight(w) + g,
            lambda: gc.nn.relu(h @ self.weight(w, w)),
            lambda: h @ self.square,
            lambda: h @ turned(self.square) * g,
            lambda: gc.tanh(h @ self.weight(w, 5)) @ self.weight(5, w),
            lambda: h @ self.weight(w, 1) * g,
            lambda: h + self.weight(1, w),
            lambda: turned(turned(h) @ g @ self.square)[:1] + h,
            lambda: gc.softmax(h @ turned(g), -1) @ g,
            lambda: gc.nn.layer_norm(h, self.weight(w), self.weight(w)),
            lambda: h - gc.mean(h, axis=d.pick((0, 1)), keepdims=True),
            lambda: (h - gc.mean(h, axis=1, keepdims=True)) * g,
            lambda: h * gc.max(g, axis=1, keepdims=True),
            lambda: gc.where(h > g, h, g * 0.5),
            lambda: gc.take(h, self.positions, axis=0) * 0.5 + g,
            lambda: gc.flip(h, axis=0) + gc.roll(g, 1, axis=1),
            lambda: gc.concat([h[:, :3], g[:, 3:]], axis=1),
            lambda: gc.cumulative_sum(h, axis=d.pick((0, 1))) * 0.1,
            lambda: gc.nn.dropout(h, 0.3) + gc.random.normal(h.shape, dtype=str(self.dtype)) * 0.1,
        )
        made = d.pick(forms[:6] if d.chance(25) else forms)()
        if d.chance(15):
            made = gc.tanh(made) * gc.sum(gc.tanh(self.aside @ self.weight(w, w))) * 0.1
        return gc.tanh(made) if d.chance(80) else made

    def step(self) -> Update | None:
        """An optimiser's update of all weights, or new values for some; perhaps none."""
        d = self.d
        y = loss(d, self.hidden[-1]) + gc.mean(d.pick(self.hidden))
        d.known(y)
        if d.chance(30):
            changed = [p for p in self.parameters if d.chance(30)]
            return gc.group(*(gc.assign(p, p * 0.5 + gc.tanh(y) * 0.1) for p in changed)) if changed else None
        kind = optim.SGD if d.chance(60) else d.pick(optimisers())
        return kind(d.pick((0.1, 1e-3))).minimize(y)


def layered(d: Drawing) -> Update | None:
    """Draw such a program."""
    layers = Layers(d)
    for _ in range(d.rng.randint(3, MOST_LAYERS)):
        try:
            layers.hidden.append(d.known(layers.layer()))
        except GraphcError:
            d.refused += 1
    try:
        return layers.step()
    except GraphcError:
        d.refused += 1
        return None
