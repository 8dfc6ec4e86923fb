"""A random program from a seed and a number: the same program on every machine that has the same registry."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

import graphc as gc
from fuzz import arguments
from fuzz.case import Array, Case, holds, is_static, numbers
from fuzz.catalogue import Entry, entries
from fuzz.layers import layered
from fuzz.requests import custom, gradient, updates
from fuzz.values import LAYOUTS, MODES, Source, laid_out
from graphc.dims import Dim, Extent, Symbol, dim, evaluate, symbols
from graphc.errors import GraphcError
from graphc.node import Node, Tensor
from graphc.opdef import OpDef
from graphc.state import Update
from passes.graph import topological
from runtime.session import unify_constraints

T = TypeVar("T")
N, M = dim("n"), dim("m")
DTYPES = (
    *("float32",) * 5, "float64", "float64", "int32", "int64", "bool", "int8", "int16", "uint8", "uint16", "uint32",
    "uint64",
)  # fmt: skip
FLOATS = ("float32", "float32", "float32", "float64")
EXTENTS: tuple[Extent, ...] = (3, 1, 2, 4, 5, 7, 17)
SIZES = ((3, 2), (1, 5), (7, 1), (0, 3), (2, 0), (9, 4), (257, 3), (5, 33), (1, 1), (0, 0), (4, 4), (16, 16), (33, 64))
LARGE = ((700, 33), (20011, 2), (3, 9000))
LAYERED = 25  # percent of the programs are layers with their training
MOST_NODES = 60
MOST_ELEMENTS = 2**21


class Drawing:
    """The state of one drawing: the tensors made so far, and how placeholders and parameters are filled."""

    def __init__(
        self, seed: int, number: int, catalogue: Sequence[Entry] | None = None, modes: Sequence[str] = MODES
    ) -> None:
        self.modes = modes
        self.rng = random.Random(f"{seed}/{number}")
        self.values = np.random.default_rng([seed, number])
        self.catalogue = list(catalogue) if catalogue is not None else entries()
        self.rows = [e for e in self.catalogue if e.op is not None] or self.catalogue
        self.layers = any(e.name == "matmul" for e in self.catalogue)
        self.tensors: list[Tensor] = []
        self.sources: dict[Tensor, Source] = {}
        self.parameters: list[Tensor] = []
        self.unread: set[Node] = set()
        self.refused = 0
        self.gradients = 0
        self.size = round(2 * (MOST_NODES / 2) ** self.rng.random() ** 0.7)
        self.extents: list[Extent] = [*self.rng.sample(EXTENTS, 2), N]
        if self.chance(50):
            self.extents.append(self.pick((M, M, N, M + 1, 2 * N)))

    # Chance.

    def pick(self, options: Sequence[T]) -> T:
        return options[self.rng.randrange(len(options))]

    def chance(self, percent: float) -> bool:
        return self.rng.random() * 100 < percent

    # Leaves.

    def shape(self, rank: int | None = None) -> tuple[Extent, ...]:
        rank = self.pick((0, 1, 1, 2, 2, 2, 3)) if rank is None else rank
        return tuple(self.pick(self.extents) for _ in range(rank))

    def leaf(
        self, dtype: Any, shape: tuple[Extent, ...], low: float = -2.0, high: float = 2.0, *, bounded: bool = False
    ) -> Tensor:
        """A new placeholder, or where the extents are numbers perhaps a parameter or a constant."""
        source = Source(shape, np.dtype(dtype), low, high, bounded)
        kinds = ("placeholder", "placeholder", "parameter", "parameter", "constant")
        what = self.pick(kinds) if is_static(shape) else "placeholder"
        if what == "placeholder":
            tensor = gc.placeholder(shape, source.dtype)
            self.sources[tensor] = source
            return self.known(tensor)
        array = source.array(self.values, tuple(int(e) for e in shape if isinstance(e, int)), self.pick(self.modes))
        if what == "constant":
            if self.chance(40) and array.size and not bounded:
                array = np.full(shape, array.reshape(-1)[0])
            return self.known(gc.constant(array))
        tensor = gc.parameter(array, trainable=array.dtype.kind == "f")
        if not bounded:
            self.parameters.append(tensor)
        return self.known(tensor)

    def known(self, tensor: Tensor) -> Tensor:
        self.tensors.append(tensor)
        return tensor

    # Tensors that are there.

    def existing(self, accept: Callable[[Tensor], bool]) -> Tensor | None:
        """A tensor that is there: mostly one of the newest, so that programs grow deep."""
        found = [t for t in reversed(self.tensors) if accept(t)]
        if not found:
            return None
        return self.pick(found[:4] if self.chance(60) else found)

    def tensor(self, kinds: str, rank: int = 0, accept: Callable[[Tensor], bool] = lambda t: True) -> Tensor:
        """A tensor of one of these dtype kinds and at least this rank: one that is there, or a new leaf."""
        found = self.existing(lambda t: t.dtype.kind in kinds and t.ndim >= rank and accept(t))
        if found is not None and not self.chance(12):
            return found
        dtype = self.pick([d for d in DTYPES if np.dtype(d).kind in kinds])
        shape = self.shape()
        return self.leaf(dtype, shape if len(shape) >= rank else self.shape(rank))

    def like(self, shape: tuple[Extent, ...], kinds: str, dtype: Any = None) -> Tensor:
        """A tensor of exactly this shape."""
        found = self.existing(
            lambda t: t.shape == shape and t.dtype.kind in kinds and (dtype is None or t.dtype == dtype)
        )
        if found is not None and not self.chance(15):
            return found
        return self.leaf(dtype or self.pick([d for d in DTYPES if np.dtype(d).kind in kinds]), shape)

    def partner(self, x: Tensor, kinds: str, dtype: Any) -> Tensor:
        """A tensor that broadcasts with ``x``."""
        fitting = [d for d in dict.fromkeys(DTYPES) if np.dtype(d).kind in kinds and dtype in (None, np.dtype(d))]
        found = self.existing(lambda t: str(t.dtype) in fitting and broadcasts(t.shape, x.shape))
        if found is not None and self.chance(75):
            return found
        start = self.rng.randint(0, x.ndim)
        shape = tuple(1 if self.chance(20) else e for e in x.shape[start:])
        return self.leaf(self.pick(fitting), shape)

    def tame(self, x: Tensor, op: OpDef) -> Tensor:
        """Mostly inside the op's domain, so that not everything becomes NaN."""
        low, high = op.domain.low, op.domain.high
        if x.dtype.kind != "f" or self.chance(20):
            return x
        if low <= -2 and high >= 2:
            return self.known(gc.tanh(x)) if self.chance(20) else x
        return self.known(gc.sigmoid(x) * (high - low) + low)

    # Lines.

    def line(self) -> None:
        """One more op, function or gradient; what graphc refuses is counted and left out."""
        before = len(self.tensors)
        try:
            if self.chance(14):
                (gradient if self.chance(85) else custom)(self)
                return
            entry = self.pick(self.rows if self.chance(65) else self.catalogue)
            made = arguments.call(self, entry)
            if made and all(small(t) for t in made):
                self.tensors += made
                return
        except GraphcError:
            pass
        self.refused += 1
        del self.tensors[before:]

    def lines(self) -> Update | None:
        """A program of any ops, and perhaps an update."""
        for _ in range(self.rng.randint(1, 3)):
            self.leaf(self.pick(DTYPES), self.shape())
        attempts = 0
        while self.nodes() < self.size and attempts < 3 * self.size + 10:
            attempts += 1
            self.line()
        return updates(self) if self.chance(60) else None

    def case(self) -> tuple[Case, list[str]]:
        """The program with feeds for its runs; and the ops in it."""
        update = layered(self) if self.layers and self.chance(LAYERED) else self.lines()
        outputs = self.fetched()
        assigns = tuple(update.assigns) if update is not None else ()
        case = Case(tuple(outputs), assigns, (), sharing=self.chance(60))
        return replace(case, runs=tuple(self.runs(case))), [n.op.name for n in case.graph.nodes]

    def nodes(self) -> int:
        return len(topological([t.node for t in self.tensors]))

    def fetched(self) -> list[Tensor]:
        """Tensors that nothing reads, and some that something does, perhaps twice."""
        read = {x for t in self.tensors for x in t.node.inputs}
        newest = list(reversed(self.tensors))
        found = [t for t in newest if t not in read and t.node.inputs][: self.pick((4, 2, 1, 8))]
        found = found or newest[:1]
        return found + [self.pick(newest) for _ in range(self.pick((1, 2, 0, 0, 4)))]

    # Runs.

    def runs(self, case: Case) -> list[dict[Tensor, Array]]:
        """Feeds for a few runs of different extents; mostly such that the program takes them."""
        count = self.pick((1, 2, 2, 3, 4))
        found: list[dict[Tensor, Array]] = []
        for _ in range(count):
            for attempt in range(12):
                sizes = self.pick(LARGE) if self.chance(6) else self.pick(SIZES)
                extents = self.solved(case, sizes)
                try:
                    shapes = {t: numbers(t.shape, extents) for t in self.sources}
                except ValueError:
                    continue  # a quotient that is not exact
                if any(np.prod(s) > MOST_ELEMENTS for s in shapes.values()):
                    continue
                feeds = {t: np.zeros(shape, t.dtype) for t, shape in shapes.items()}
                trial = replace(case, runs=(feeds,))
                if holds(trial, 0) and largest(trial) <= MOST_ELEMENTS:
                    break
                if attempt > 9 and self.chance(10) and all(np.prod(s) <= 4096 for s in shapes.values()):
                    break  # as it is: both devices must refuse it alike
            else:
                continue
            found.append({t: self.fed(t, shape) for t, shape in shapes.items()})
        return found

    def solved(self, case: Case, sizes: tuple[int, int]) -> dict[Symbol, int]:
        """Numbers for the symbols: n and m as given, but for what the program ties to something else."""
        given = dict(zip((N, M), sizes, strict=True))
        found: dict[Symbol, int] = {}
        try:
            unifier = unify_constraints(case.graph.nodes)
        except GraphcError:
            unifier = None
        for d, size in given.items():
            (symbol,) = symbols(d)
            tied = d if unifier is None else unifier.canonical(d)
            if isinstance(tied, int):
                found[symbol] = tied
            elif tied == d or not isinstance(tied, Dim):
                found[symbol] = size
        for d, size in given.items():
            (symbol,) = symbols(d)
            if symbol not in found:
                tied = unifier.canonical(d) if unifier is not None else d
                try:
                    found[symbol] = max(evaluate(tied, found), 0)
                except (KeyError, ValueError):
                    found[symbol] = size
        return found

    def fed(self, tensor: Tensor, shape: tuple[int, ...]) -> Array:
        array = self.sources[tensor].array(self.values, shape, self.pick(self.modes))
        return laid_out(array, self.pick(LAYOUTS))


def broadcasts(a: tuple[Extent, ...], b: tuple[Extent, ...]) -> bool:
    return all(x == 1 or y == 1 or x == y for x, y in zip(a[::-1], b[::-1], strict=False))


def small(tensor: Tensor) -> bool:
    """Whether a tensor stays of a size that is worth computing."""
    if tensor.ndim > 5:
        return False
    return bool(np.prod([e if isinstance(e, int) else 1 for e in tensor.shape]) <= 5000)


def largest(case: Case) -> int:
    """Elements of the largest tensor of the only run."""
    extents = case.extents(0)
    sizes = [int(np.prod(numbers(r.shape, extents))) for n in case.computed.nodes for r in n.results]
    return max(sizes, default=0)


def draw(seed: int, number: int, catalogue: Sequence[Entry] | None = None) -> tuple[Case, list[str]]:
    """Program ``number`` of ``seed``, and the names of the ops in it."""
    return Drawing(seed, number, catalogue).case()
