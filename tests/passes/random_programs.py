"""A random program, built line by line so that a failing one can be printed as a script."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import graphc as gc
from graphc import ops
from graphc.dims import Extent, dim
from graphc.node import Tensor
from graphc.opdef import OPS

Array = np.ndarray[Any, Any]
N, M = dim("n"), dim("m")
HEAD = (
    "import numpy as np",
    "from numpy import inf, nan",
    "import graphc as gc",
    "from graphc import ops",
    "from graphc.opdef import OPS",
    "n, m = gc.dim('n'), gc.dim('m')",
)
NAMES = {"inf": np.inf, "nan": np.nan, "gc": gc, "ops": ops, "np": np, "OPS": OPS, "n": N, "m": M}


@dataclass
class Feed:
    """How a placeholder or parameter is filled."""

    shape: tuple[Extent, ...]
    dtype: str
    low: float = -2.0
    high: float = 2.0
    mode: str = "plain"

    def array(self, sizes: tuple[int, int], seed: list[int]) -> Array:
        """Numbers that depend on ``seed`` alone; ``sizes`` are those of the symbolic extents n and m."""
        rng = np.random.default_rng(seed)
        shape = tuple(sizes[0] if e == N else sizes[1] if e == M else e for e in self.shape)
        dtype = np.dtype(self.dtype)
        if dtype.kind == "b":
            return rng.random(shape) < 0.5
        low = max(self.low, 0) if dtype.kind == "u" else self.low
        if dtype.kind != "f" or self.mode == "steps":
            return rng.integers(int(low), int(self.high) + 1, shape).astype(dtype)
        values = rng.uniform(low, self.high, shape)
        if self.mode == "special":
            chosen = rng.choice([0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, 1e30, 1e-30, 100.0, -100.0, 1e-42], shape)
            values = np.where(rng.random(shape) < 0.3, chosen, values)
        return values.astype(dtype)


@dataclass(repr=False)
class Program:
    """A drawn program: what to fetch, what to feed, and the lines that say how it was made."""

    tensors: list[Tensor] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    feeds: dict[Tensor, Feed] = field(default_factory=dict)
    parameters: list[Tensor] = field(default_factory=list)
    fetches: list[Tensor] = field(default_factory=list)
    update: Any = None
    sizes: tuple[tuple[int, int], ...] = ()
    fixed: dict[Extent, int] = field(default_factory=dict)
    nonempty: bool = False
    gradients: int = 0

    def add(self, line: str) -> Tensor:
        """Evaluate one more line; its tensor is ``t<number>``."""
        tensor = self.value_of(line)
        self.lines.append(f"t{len(self.tensors)} = {line}")
        self.tensors.append(tensor)
        return tensor

    def add_all(self, line: str, count: int) -> None:
        """Evaluate a line that gives ``count`` tensors."""
        first = len(self.tensors)
        self.lines.append(", ".join(f"t{first + i}" for i in range(count)) + f", = {line}")
        self.tensors += self.value_of(line)

    def value_of(self, line: str) -> Any:
        return eval(line, {**NAMES, **{f"t{i}": t for i, t in enumerate(self.tensors)}})

    def name(self, tensor: Tensor) -> str:
        return f"t{next(i for i, t in enumerate(self.tensors) if t is tensor)}"

    @property
    def fetched(self) -> list[Any]:
        return [*self.fetches, *([] if self.update is None else [self.update])]

    def arrays(self, run: int) -> dict[Tensor, Array]:
        return {t: f.array(self.sizes[run], [run, i]) for i, (t, f) in enumerate(self.feeds.items())}

    def script(self, run: int) -> str:
        """A program to paste: it prints what the two devices give."""
        feeds = ", ".join(f"{self.name(t)}: np.{source(a)}" for t, a in self.arrays(run).items())
        fetches = ", ".join([*(self.name(t) for t in self.fetches), *([] if self.update is None else ["update"])])
        got = ", ".join(f"s.get({self.name(p)})" for p in self.parameters)
        loop = [
            "for device in ('reference', 'cpu'):",
            "    with gc.Session(device) as s:",
            f"        print(s.run([{fetches}], {{{feeds}}}), {got})",
        ]
        return "\n".join([*HEAD, *self.lines, *loop])


def source(array: Array) -> str:
    text = np.array2string(array, separator=", ", threshold=400, floatmode="unique").replace("\n", "")
    return f"array({text or '[]'}, dtype='{array.dtype}').reshape({array.shape})"


def extents(shape: tuple[Extent, ...]) -> str:
    """A shape as source."""
    return "(" + "".join(re.sub(r"(\w)\*\*2", r"\1*\1", str(e)) + ", " for e in shape) + ")"
