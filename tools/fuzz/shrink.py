"""A smaller case that fails in the same way: fewer runs, fetches and nodes, smaller extents, simpler numbers.

Each step proposes smaller cases; the first that still fails is kept, until none does or time is up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

import graphc as gc
from fuzz.case import Array, Case, numbers
from fuzz.check import Failure
from fuzz.script import LONG, is_pattern, pattern
from graphc.dims import Dim, Symbol, evaluate
from graphc.node import Node, Tensor, attrs_of, make_node
from graphc.opdef import Kind
from graphc.ops.leaf import CONSTANT
from graphc.state import PARAMETER
from passes.gradient import expand_gradients

Fails = Callable[[Case], "Failure | None"]
DEPTHS = (1, 2, 3, 5, 8, 13)


class Shrinker:
    """Makes ``case`` smaller as long as ``fails`` finds a failure of the same signature in it, within ``seconds``."""

    def __init__(self, case: Case, failure: Failure, fails: Fails, seconds: float = 60.0) -> None:
        self.case = case
        self.failure = failure
        self._fails = fails
        self._deadline = time.monotonic() + seconds
        self.tried = 0

    def shrink(self) -> tuple[Case, Failure]:
        """The smallest case found, and how it fails."""
        self.first(one_run(self.case, self.failure.run))
        self.first(fewer_fetches(self.case, self.failure))
        while self.first(fewer_elements(self.case)) or self.first(patterned(self.case)):
            pass
        self.first(written_out(self.case))
        self.first(shallow(self.case))
        steps = (fewer_runs, single_fetches, fed, bypassed, unread, numbered, smaller, simpler, parameters_fed)
        improved = True
        while improved and not self.late():
            improved = False
            for step in steps:
                while self.first(step(self.case)):
                    improved = True
        return self.case, self.failure

    def late(self) -> bool:
        return time.monotonic() > self._deadline

    def first(self, candidates: Iterable[Case]) -> bool:
        """Keep the first of the candidates that fails in the same way."""
        iterator = iter(candidates)
        while not self.late():
            try:
                candidate = next(iterator, None)
            except Exception:
                return False  # the step does not apply to what the reference itself refuses
            if candidate is None:
                return False
            self.tried += 1
            found = self._fails(candidate)
            if found is not None and found.signature == self.failure.signature:
                self.case, self.failure = candidate, found
                return True
        return False


def attempted(builders: Iterable[Callable[[], Case]]) -> Iterator[Case]:
    """Those cases that can be built."""
    for build in builders:
        try:
            yield build()
        except Exception:  # whatever a rule raises for operands that it was not made for
            continue


# Runs and fetches.


def one_run(case: Case, run: int) -> Iterator[Case]:
    """The run that fails alone, from the parameters that the reference has then."""
    if len(case.runs) == 1:
        return
    with gc.Session("reference") as session:
        for p, value in case.values.items():
            session.set(p, value)
        for number in range(run):
            with np.errstate(all="ignore"):
                session.run(case.fetches, case.runs[number])
        values = {p: np.asarray(session.get(p)) for p in case.parameters}
    yield replace(case, runs=(case.runs[run],), values=values)


def fewer_runs(case: Case) -> Iterator[Case]:
    if len(case.runs) > 1:
        for i in range(len(case.runs)):
            yield replace(case, runs=case.runs[:i] + case.runs[i + 1 :])


def fewer_fetches(case: Case, failure: Failure) -> Iterator[Case]:
    """Only the result that is wrong."""
    if failure.difference is not None:
        place = failure.difference.place
        if place < len(case.outputs):
            yield replace(case, outputs=(case.outputs[place],), updates=())
        else:
            yield replace(case, outputs=(), updates=(case.updates[place - len(case.outputs)],))


def single_fetches(case: Case) -> Iterator[Case]:
    """One output less, or one update less; the halves first."""
    everything = [*case.outputs, *case.updates]
    half = len(everything) // 2
    parts = [everything[:half], everything[half:]] if half > 1 else []
    parts += [everything[:i] + everything[i + 1 :] for i in range(len(everything))]
    for part in parts:
        outputs = tuple(x for x in part if isinstance(x, Tensor))
        updates = tuple(x for x in part if isinstance(x, Node))
        if part and len(part) < len(everything):
            yield replace(case, outputs=outputs, updates=updates)


def unread(case: Case) -> Iterator[Case]:
    """Without feeds that nothing reads."""
    needed = set(case.placeholders)
    if any(t not in needed for feeds in case.runs for t in feeds):
        runs = tuple({t: a for t, a in feeds.items() if t in needed} for feeds in case.runs)
        yield replace(case, runs=runs)
    present = set(case.parameters)
    if any(p not in present for p in case.values):
        yield replace(case, values={p: a for p, a in case.values.items() if p in present})


# Nodes.


def written_out(case: Case) -> Iterator[Case]:
    """The gradients as the nodes that compute them."""
    if any(n.op.kind is Kind.TRANSFORM for n in case.graph.nodes):
        graph = expand_gradients(case.graph)
        yield replace(case, outputs=graph.outputs, updates=graph.updates)


def intermediate(case: Case) -> list[Tensor]:
    """Results that something reads, the last first; none of a fetched tensor."""
    fetched = set(case.outputs)
    return [t for n in reversed(case.graph.nodes) if n.inputs for t in n.outputs if t not in fetched]


def shallow(case: Case) -> Iterator[Case]:
    """Only the last few nodes before the fetches; what they read is fed."""
    distance: dict[Node, int] = {}
    for node in reversed(case.graph.nodes):
        readers = [distance[r] for t in node.outputs for r in case.graph.readers[t]]
        root = not node.outputs or any(t is f for t in node.outputs for f in case.outputs)
        distance[node] = min([0] if root else [d + 1 for d in readers], default=0)
    values = Values(case)
    for depth in DEPTHS:
        cut = [t for t in intermediate(case) if distance[t.node] == depth]
        if cut:
            yield values.fed(cut)


def fed(case: Case) -> Iterator[Case]:
    """One intermediate result fed instead of computed."""
    values = Values(case)
    return attempted((lambda t=t: values.fed([t])) for t in intermediate(case))


def bypassed(case: Case) -> Iterator[Case]:
    """One node less: an input of the same type in place of its result."""
    pairs = [
        (t, x)
        for node in reversed(case.graph.nodes)
        for t in node.outputs
        for x in node.inputs
        if x.type == t.type and len(node.outputs) == 1
    ]
    return attempted((lambda t=t, x=x: case.with_tensors({t: x})) for t, x in pairs)


def parameters_fed(case: Case) -> Iterator[Case]:
    """A placeholder in place of a parameter that nothing assigns."""
    written = {u.inputs[0] for u in case.updates}
    values = Values(case)
    return attempted((lambda p=p: values.fed([p])) for p in case.parameters if p not in written)


class Values:
    """What the reference computes for every tensor of a case, found when first needed."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self._known: list[dict[Tensor, Array]] | None = None

    @property
    def known(self) -> list[dict[Tensor, Array]]:
        if self._known is None:
            tensors = [t for n in self.case.graph.nodes for t in n.outputs]
            whole = Case(tuple(tensors), self.case.updates, self.case.runs)
            self._known = []
            with gc.Session("reference") as session:
                for p, value in self.case.values.items():
                    session.set(p, value)
                for feeds in self.case.runs:
                    with np.errstate(all="ignore"):
                        found = session.run(whole.fetches, feeds)
                    arrays = [np.asarray(a) for a in found[: len(tensors)]]
                    self._known.append(dict(zip(tensors, arrays, strict=True)))
        return self._known

    def fed(self, tensors: list[Tensor]) -> Case:
        """The case with these tensors fed, with the values that the reference computes for them."""
        replaced = {t: gc.placeholder(t.shape, t.dtype) for t in tensors}
        new = self.case.with_tensors(replaced)
        runs = tuple(
            {**feeds, **{replaced[t]: known[t] for t in tensors}}
            for feeds, known in zip(self.case.runs, self.known, strict=True)
        )
        return replace(new, runs=runs)


# Extents.


def numbered(case: Case) -> Iterator[Case]:
    """Numbers in place of symbolic extents."""
    if any(isinstance(e, Dim) for n in case.graph.nodes for r in n.results for e in r.shape):
        extents = [case.extents(run) for run in range(len(case.runs))]
        if all(e == extents[0] for e in extents):
            yield reshaped(case, lambda e: evaluate(e, extents[0]), extents[0])


def fewer_elements(case: Case) -> Iterator[Case]:
    """One symbolic extent smaller in one run."""
    return attempted(_fewer_elements(case))


def _fewer_elements(case: Case) -> Iterator[Callable[[], Case]]:
    for run in range(len(case.runs)):
        extents = case.extents(run)
        for symbol, size in extents.items():
            for less in _less(size):
                yield lambda run=run, new={**extents, symbol: less}: resized(case, run, new)


def smaller(case: Case) -> Iterator[Case]:
    """One extent smaller, wherever it occurs."""
    yield from fewer_elements(case)
    yield from attempted(_smaller(case))


def _smaller(case: Case) -> Iterator[Callable[[], Case]]:
    fixed = sorted(
        {e for n in case.graph.nodes for r in n.results for e in r.shape if isinstance(e, int)}, reverse=True
    )
    for size in fixed:
        for less in _less(size):
            yield lambda size=size, less=less: reshaped(case, lambda e: less if e == size else e, None)


def _less(size: int) -> list[int]:
    return sorted({n for n in (0, 1, 2, 3, 16, size // 2, size - 1) if 0 <= n < size})


def resized(case: Case, run: int, extents: Mapping[Symbol, int]) -> Case:
    """One run with other values of symbolic extents."""
    feeds = {t: cut(a, numbers(t.shape, extents)) for t, a in case.runs[run].items()}
    return replace(case, runs=(*case.runs[:run], feeds, *case.runs[run + 1 :]))


def reshaped(case: Case, change: Callable[[Any], Any], extents: Mapping[Symbol, int] | None) -> Case:
    """The case with every extent changed, in leaves and in attributes; what follows is inferred again."""

    def changed(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(changed(v) for v in value)
        if isinstance(value, Tensor):
            return replaced.get(value, value)
        return change(value) if isinstance(value, Dim) or type(value) is int else value

    replaced: dict[Tensor, Tensor] = {}
    arrays: dict[Tensor, Array] = dict(case.values)
    nodes = [*case.graph.nodes, *{t.node: None for feeds in case.runs for t in feeds}]
    for node in dict.fromkeys(nodes):
        if not node.outputs or node.outputs[0] in replaced:
            continue
        (old, *_), attrs = node.outputs, dict(node.attrs)
        if node.op is PARAMETER:
            shape = changed(old.shape)
            new = gc.parameter(cut(_initial(old), shape))
            if old in case.values:
                arrays[new] = cut(case.values[old], shape)
            replaced[old] = new
            continue
        if node.op is CONSTANT:
            replaced[old] = gc.constant(cut(attrs["value"], changed(attrs["value"].shape)))
            continue
        wanted = {"shape", "extent", "seeds", "stand_ins"}
        attrs = {k: changed(v) if k in wanted else v for k, v in attrs.items()}
        fresh = make_node(node.op, [replaced[t] for t in node.inputs], attrs_of(**attrs))
        replaced.update(zip(node.outputs, fresh.outputs, strict=True))
    updates = tuple(make_node(u.op, [replaced[t] for t in u.inputs], u.attrs) for u in case.updates)
    runs = []
    for number, feeds in enumerate(case.runs):
        sizes = case.extents(number) if extents is None else extents
        runs.append({replaced[t]: cut(a, numbers(replaced[t].shape, sizes)) for t, a in feeds.items()})
    return replace(
        case, outputs=tuple(replaced[t] for t in case.outputs), updates=updates, runs=tuple(runs), values=arrays
    )


def _initial(parameter: Tensor) -> Array:
    with gc.Session("reference") as session:
        return np.asarray(session.get(parameter))


def cut(array: Array, shape: tuple[int, ...]) -> Array:
    """The first elements along every axis; ``ValueError`` where there are too few."""
    if len(shape) != array.ndim or any(n > m for n, m in zip(shape, array.shape, strict=True)):
        raise ValueError(f"{array.shape} has no {shape}")
    return array[tuple(slice(n) for n in shape)]


# Numbers.


def patterned(case: Case) -> Iterator[Case]:
    """A pattern in place of one long array of many different numbers."""
    for run, feeds in enumerate(case.runs):
        for t, a in feeds.items():
            if a.size > LONG and not is_pattern(a):
                runs = (*case.runs[:run], {**feeds, t: pattern(a.shape, t.dtype)}, *case.runs[run + 1 :])
                yield replace(case, runs=runs)


def simpler(case: Case) -> Iterator[Case]:
    """One fed array, or one parameter's value, simpler."""
    for run, feeds in enumerate(case.runs):
        for t, a in feeds.items():
            for new in _simpler(a):
                runs = (*case.runs[:run], {**feeds, t: new}, *case.runs[run + 1 :])
                yield replace(case, runs=runs)
    for p, a in case.values.items():
        for new in _simpler(a):
            yield replace(case, values={**case.values, p: new})


def _simpler(array: Array) -> Iterator[Array]:
    """Arrays that are simpler, plainest first; none for one that is plain already."""
    native = array.dtype.newbyteorder("=")
    plain = np.require(array, native, ["C", "A"])
    rank = _complexity(array)
    if is_pattern(array):
        rank = (*rank[:2], 0)
    candidates = [np.zeros(array.shape, native), np.ones(array.shape, native)]
    if array.size:
        candidates.append(np.full(array.shape, plain.reshape(-1)[0]))
    if native.kind == "f":
        with np.errstate(all="ignore"):
            candidates += [np.where(np.isfinite(plain), plain, 1), np.rint(plain), np.round(plain, 1)]
    candidates.append(plain)
    for new in candidates:
        if _complexity(new.astype(native)) < rank:
            yield new.astype(native)


def _complexity(array: Array) -> tuple[int, int, int]:
    """How much there is to read in an array."""
    unusual = not (array.flags.carray and array.dtype.isnative)
    flat = [str(v) for v in array.reshape(-1)[:200]]
    return len(set(flat)), sum(map(len, flat)), int(unusual)
