"""``GRAPHC_DEBUG=passes``: the reference after every pass, on the caller's own feeds, so that a wrong pass has a name.

On the first run for each new set of extents the graph is evaluated as it was written and after every pass. What stands
for a tensor after a pass must have its value: to the bit, where nothing is rounded; otherwise within what rounding
explains (``rounding.py``). A pass that is marked so may change what is computed from values that are not finite: an
overflow that it avoids may have hidden behind a finite result, as in ``1 / (1 + exp(90))``. Then the compiled step
runs, and is compared with the graph that it was made of; where it differs the fault lies in lowering: fusion, kernels,
schedule or memory.

What a gradient is, is said by its expansion: that pass is compared with itself, and so not checked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.dims import Symbol
from graphc.errors import CompilerError
from graphc.node import Node, Tensor
from passes.gradient import expand_gradients
from passes.graph import Graph, composed, rebuilds
from passes.pipeline import Stage
from passes.printer import print_window
from runtime.guarded import GuardedProgram
from runtime.numerics import first_place, position
from runtime.rounding import MORE_TRIALS, Range, measure
from runtime.store import ParameterStore

if TYPE_CHECKING:
    from runtime.session import Program

log = logging.getLogger("graphc.debug")
Array = np.ndarray[Any, Any]


class _Evaluated:
    """A graph with the range of each of its tensors."""

    def __init__(
        self, graph: Graph, program: GuardedProgram, values: Mapping[Symbol, int], feeds: Sequence[Array]
    ) -> None:
        with rebuilds() as steps:
            self._expanded = expand_gradients(graph)
        self.graph = graph
        self._stands = composed(steps)
        self._given = values, program.leaves(self._expanded, feeds)
        self._ranges = measure(self._expanded, *self._given)

    def look_closer(self) -> None:
        """Measure again with more trials, before something is called wrong."""
        self._ranges = measure(self._expanded, *self._given, MORE_TRIALS)

    def range(self, tensor: Tensor) -> Range | None:
        """None for a tensor that nothing fetched needs."""
        return self._ranges.get(self.standing_for(tensor))

    def overflowed(self) -> set[Tensor]:
        """The tensors that are not finite everywhere, and all that is computed from them."""
        found: set[Tensor] = set()
        for node in self._expanded.nodes:
            reached = any(t in found for t in node.inputs)
            for tensor in node.outputs:
                known = self._ranges.get(tensor)
                if reached or (known is not None and not _is_finite(known.value)):
                    found.add(tensor)
        return found

    def standing_for(self, tensor: Tensor) -> Tensor:
        """The tensor of the expanded graph that has this one's value."""
        return self._stands.get(tensor, tensor)

    @property
    def updates(self) -> dict[Tensor, Tensor]:
        """``parameter -> value``."""
        return {a.inputs[0]: a.inputs[1] for a in self.graph.updates}


class DebuggedProgram(GuardedProgram):
    """A program that is compared with the reference, pass by pass."""

    def __init__(
        self, inner: Program, stages: Sequence[Stage], placeholders: Sequence[Tensor], store: ParameterStore
    ) -> None:
        super().__init__(inner, stages[0].graph, placeholders, store)
        self._stages = stages
        self._done: set[tuple[tuple[Symbol, int], ...]] = set()

    def run_once(self, values: Mapping[Symbol, int], feeds: Sequence[Array]) -> list[Any]:
        """Outputs in order. ``CompilerError`` names the pass that is wrong; nothing has changed then."""
        key = tuple(values.items())
        if key in self._done:
            return self._inner.run(values, feeds)
        final = self._check_passes(values, feeds)
        with self.restoring():
            results = self._inner.run(values, feeds)
            self._check_lowering(final, results)
        log.info("every pass and the compiled step agree with the reference at extents %s", key)
        self._done.add(key)
        return results

    def _check_passes(self, values: Mapping[Symbol, int], feeds: Sequence[Array]) -> _Evaluated:
        before = _Evaluated(self._stages[0].graph, self, values, feeds)
        for number, stage in enumerate(self._stages[1:], 1):
            if _same(before.graph, stage.graph):
                continue
            right = ", ".join(s.done.name for s in self._stages[1:number]) or "none"
            told = f"pass {stage.done.name!r} is wrong (passes before it, which are right: {right})\n"
            try:
                after = _Evaluated(stage.graph, self, values, feeds)
            except Exception as error:
                raise CompilerError(f"{told}  its graph cannot be evaluated: {error}") from error
            if _fault(before, after, stage):
                before.look_closer()
                fault = _fault(before, after, stage)
                if fault:
                    raise CompilerError(f"{told}  {fault}")
            before = after
        return before

    def _check_lowering(self, final: _Evaluated, results: Sequence[Any]) -> None:
        if self._lowering_fault(final, results):
            final.look_closer()
            fault = self._lowering_fault(final, results)
            if fault:
                raise CompilerError(f"lowering is wrong (every pass is right): {fault}")

    def _lowering_fault(self, final: _Evaluated, results: Sequence[Any]) -> str:
        """What the compiled step gave wrong, or nothing."""
        pairs = [(t, np.asarray(r)) for t, r in zip(final.graph.outputs, results, strict=True)]
        pairs += [(value, self._store.array(parameter)) for parameter, value in final.updates.items()]
        for place, (tensor, found) in enumerate(pairs):
            expected = final.range(tensor)
            assert expected is not None
            wrong = _wrong(expected, found)
            if np.any(wrong):
                return (
                    f"{tensor.describe()}{_writers(self.program, place, [*final.updates])}\n"
                    f"  {_difference(expected, found, wrong)}\n{print_window(final.graph.nodes, tensor.node)}"
                )
        return ""


def _same(before: Graph, after: Graph) -> bool:
    pairs = zip((*before.outputs, *before.updates), (*after.outputs, *after.updates), strict=False)
    return len(before.nodes) == len(after.nodes) and all(a is b for a, b in pairs)


def _fault(before: _Evaluated, after: _Evaluated, stage: Stage) -> str:
    """What the pass did wrong, or nothing."""
    lost = [p for p in before.updates if p not in after.updates]
    if lost:
        return "it drops the update of " + ", ".join(p.describe() for p in lost)
    if len(before.graph.outputs) != len(after.graph.outputs) or len(before.updates) != len(after.updates):
        return (
            f"{len(before.graph.outputs)} fetched tensors and {len(before.updates)} updates became "
            f"{len(after.graph.outputs)} and {len(after.updates)}"
        )
    excused = before.overflowed() if stage.done.stabilises else set()
    for old, new in _pairs(before, after, stage):
        expected, found = before.range(old), after.range(new)
        if expected is None or found is None:
            continue
        if expected.value.shape != found.value.shape or expected.value.dtype != found.value.dtype:
            return _told(before, after, old, new, f"{_type(expected.value)} became {_type(found.value)}")
        wrong = _wrong(expected, found.value)
        if np.any(wrong) and before.standing_for(old) not in excused:
            return _told(before, after, old, new, _difference(expected, found.value, wrong))
    return ""


def _pairs(before: _Evaluated, after: _Evaluated, stage: Stage) -> Iterable[tuple[Tensor, Tensor]]:
    """A tensor and what stands for it, inputs first; fetched tensors and updates last, which every pass must keep."""
    for node in before.graph.nodes:
        for tensor in node.outputs:
            new = stage.replaced.get(tensor)
            if new is not None and new is not tensor:
                yield tensor, new
    yield from zip(before.graph.outputs, after.graph.outputs, strict=True)
    for parameter, value in before.updates.items():
        yield value, after.updates[parameter]


def _is_finite(value: Array) -> bool:
    return value.dtype.kind != "f" or bool(np.all(np.isfinite(value)))


def _wrong(expected: Range, found: Array) -> Array:
    if found.shape != expected.value.shape or found.dtype != expected.value.dtype:
        return np.ones(expected.value.shape or (1,), bool)
    return expected.wrong(found)


# Words.


def _told(before: _Evaluated, after: _Evaluated, old: Tensor, new: Tensor, what: str) -> str:
    return (
        f"first at {old.node.op.name} at {old.node.where}: {what}\n"
        f"  before:\n{_window(before, old.node)}\n  after:\n{_window(after, new.node)}"
    )


def _window(side: _Evaluated, node: Node) -> str:
    nodes = side.graph.nodes
    return print_window(nodes, node) if node in set(nodes) else "    (not part of the graph)"


def _difference(expected: Range, found: Array, wrong: Array) -> str:
    if found.shape != expected.value.shape or found.dtype != expected.value.dtype:
        return f"{_type(expected.value)} became {_type(found)}"
    place = first_place(wrong)
    return (
        f"{np.count_nonzero(wrong)} of {wrong.size} elements differ, first at {position(place)}: "
        f"{expected.value[place]!s} became {found[place]!s}, and rounding explains {expected.tolerance()[place]:.3g}"
    )


def _type(array: Array) -> str:
    return f"{array.dtype}{list(array.shape)}"


def _writers(program: Any, place: int, parameters: Sequence[Tensor]) -> str:
    """The kernels that write a fetched tensor, or the new value of a parameter."""
    outputs = len(program.outputs)
    if place < outputs:
        target = {program.outputs[place].buffer}
    else:
        target = {b for b in program.buffers if b.tensor is parameters[place - outputs]}
    found = [f"{i} ({c.label})" for i, c in enumerate(program.calls) if target & set(c.writes)]
    return f", written by kernel {', '.join(found)}"
