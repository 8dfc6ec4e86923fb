"""Merging fused kernels that share data: the second half of fusion.

The first half (``fuse.py``) puts a node with its readers, so that two kernels of which neither reads all of the other's
result stay apart, although they walk the same elements: a value and its gradient, sums over different axes, a row-wise
chain and the sum of its rows. Here pairs of kernels that share a tensor become one, when

- they walk the same axes, and reduce the same of them (or one of them reduces none);
- or one reduces the row and the other all outer axes: the first then makes partial *totals* per block of rows, and
  the second becomes the kernel that combines them;
- what one stores and the other reads is read at the element at which it is stored;
- no third kernel stands between them.

Every question has an answer in words, which ``explain`` shows for neighbours that stay apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from graphc.dims import Extent
from graphc.node import Node, Tensor
from graphc.opdef import Kind
from passes.cluster import ANYWHERE, MAX_OPS, Cluster, is_plain
from passes.order import TopologicalOrder
from passes.stages import Stages
from passes.union import aligned, aligned_by_input, completed, halves, obstacle, same_combination, united, wider

ATTEMPTS = 8  # readers of one tensor that are tried with each other
Units = list["Cluster | Node | None"]


@dataclass(frozen=True, slots=True)
class Apart:
    """Two units of which ``consumer`` reads ``tensor`` from ``producer``, and why they are not one kernel."""

    producer: int
    consumer: int
    tensor: Tensor
    why: str


@dataclass(frozen=True)
class Plan:
    """The merged kernel, and what remains of the second one when the first only makes its totals."""

    kernel: Cluster
    rest: Cluster | None = None


class Merger:
    """Merges clusters in place in ``units``; an absorbed one becomes None.

    ``required`` must end up in memory; ``updated`` has the parameter for each new value of one; ``root`` gives the
    tensor whose memory a tensor shares; ``order`` is the order that the units must keep.
    """

    def __init__(
        self,
        units: Units,
        order: TopologicalOrder,
        required: Iterable[Tensor],
        updated: Mapping[Tensor, Tensor],
        root: Callable[[Tensor], Tensor],
        operands: Callable[[Node], Sequence[Tensor]],
        canonical: Callable[[Extent], Extent],
    ) -> None:
        self._units = units
        self._order = order
        self._root = root
        self._operands = operands
        self._canonical = canonical
        self._required = {root(t) for t in required}
        self._updated = updated
        self._makers: dict[Tensor, dict[int, None]] = {}
        self._readers: dict[Tensor, dict[int, None]] = {}
        self._plans: dict[int, dict[tuple[int, int], Plan | str]] = {}  # for each unit those of its pairs, as they are
        for number, unit in enumerate(units):
            if isinstance(unit, Cluster):
                unit.frame = tuple(canonical(e) for e in unit.frame)
            self._note(number)

    def run(self) -> None:
        """Merge until nothing more can be, at most a few rounds."""
        for _ in range(4):
            merged = False
            for tensor in list(self._readers):
                merged |= self._around(tensor)
            if not merged:
                break
        for number in range(len(self._units)):
            self._total_after_product(number)

    def apart(self) -> tuple[Apart, ...]:
        """Why neighbours stayed apart."""
        found = []
        for tensor, makers in self._makers.items():
            for maker in makers:
                for reader in self._readers.get(tensor, ()):
                    if reader != maker:
                        found.append(Apart(maker, reader, tensor, self._why(maker, reader)))
        return tuple(found)

    # Who makes and reads what.

    def _reads(self, number: int) -> list[Tensor]:
        unit = self._units[number]
        if unit is None:
            return []
        return unit.reads() if isinstance(unit, Cluster) else list(self._operands(unit))

    def _makes(self, number: int) -> list[Tensor]:
        unit = self._units[number]
        if unit is None:
            return []
        if isinstance(unit, Cluster):
            return list(dict.fromkeys([*unit.outputs, *(piece.target for piece in unit.pieces)]))
        return list(unit.outputs)

    def _note(self, number: int) -> None:
        for tensor in self._makes(number):
            self._makers.setdefault(tensor, {})[number] = None
        for tensor in self._reads(number):
            self._readers.setdefault(self._root(tensor), {})[number] = None

    def _forget(self, number: int) -> None:
        self._ask_again(number)
        for tensor in self._makes(number):
            self._makers[tensor].pop(number, None)
        for tensor in self._reads(number):
            root = self._root(tensor)
            self._readers[root].pop(number, None)
            for maker in self._makers.get(root, ()):  # what it must store depends on who reads it
                self._ask_again(maker)

    def _ask_again(self, number: int) -> None:
        """Forget the plans for pairs of which a unit is one."""
        for pair in self._plans.pop(number, {}):
            for other in pair:
                if other in self._plans:
                    self._plans[other].pop(pair, None)

    # Pairs.

    def _around(self, tensor: Tensor) -> bool:
        """Try the kernels that make and read ``tensor`` with each other."""
        if tensor.ndim == 0:
            return False
        group = [*self._makers.get(tensor, ()), *self._order.by_place(self._readers.get(tensor, ()))]
        group = list(dict.fromkeys(group))
        merged = False
        for i, first in enumerate(group):
            for second in group[i + 1 : i + 1 + ATTEMPTS]:
                if self._units[first] is not None and self._units[second] is not None:
                    merged |= self._try(first, second) or self._try(second, first)
        return merged

    def _why(self, first: int, second: int) -> str:
        answer = self._plan(first, second)
        return answer if isinstance(answer, str) else "another kernel stands between them"

    def _try(self, first: int, second: int) -> bool:
        plan = self._plan(first, second)
        if isinstance(plan, str):
            return False
        changed = [first, second]
        if not self._order.contract(first, second, keep_both=plan.rest is not None):
            return False
        for number in changed:
            self._forget(number)
        self._units[first], self._units[second] = plan.kernel, plan.rest
        if plan.rest is None:
            self._units[first], self._units[second] = None, plan.kernel
        for number in changed:
            self._note(number)
        if plan.rest is not None:
            made = self._makes(second)
            self._order.replace_readers(second, {u for t in made for u in self._readers.get(t, ()) if u != second})
            self._join_combinations(first, second)
        return True

    def _join_combinations(self, maker: int, fresh: int) -> None:
        """One kernel combines all totals of one shape that another kernel made."""
        kernel, mine = self._units[maker], self._units[fresh]
        assert isinstance(kernel, Cluster)
        assert isinstance(mine, Cluster)
        for number, other in enumerate(self._units):
            if number == fresh or not isinstance(other, Cluster) or not other.combined:
                continue
            if not all(t in kernel.totals for t in other.combined):
                continue
            axes = same_combination(mine, other)
            if axes is None:
                continue
            union = united(mine, other, axes, mine.reduced)
            if len(union.nodes) > MAX_OPS or not self._order.contract(number, fresh):
                continue
            for old in (number, fresh):
                self._forget(old)
            self._units[number], self._units[fresh] = None, union
            self._note(fresh)
            mine = union

    # One pair.

    def _plan(self, first: int, second: int) -> Plan | str:
        """How to merge two units, or why not. A pair is asked about for each tensor that it shares."""
        pair = (first, second)
        found = self._plans.get(first, {}).get(pair)
        if found is None:
            found = self._planned(first, second)
            for number in pair:
                self._plans.setdefault(number, {})[pair] = found
        return found

    def _planned(self, first: int, second: int) -> Plan | str:
        one, other = self._units[first], self._units[second]
        if not isinstance(one, Cluster) or not isinstance(other, Cluster):
            node = one if isinstance(one, Node) else other
            assert isinstance(node, Node)
            return f"{node.op.name} is a kernel of its own"
        if one.combined or other.combined:
            return "one of them combines partial results of all blocks"
        later = set(self._makes(second))
        if any(self._root(t) in later for t in one.reads()):
            return "the first reads what the second makes"
        made = set(self._makes(first))
        through = [t for t in other.reads() if self._root(t) in made]
        problem = next(filter(None, (self._must_be_stored(one, other, t) for t in through)), None)
        if problem:
            return problem
        axes = self._axes(one, other, through)
        if isinstance(axes, str):
            return axes
        base, joined, axes = wider(one, other, axes)
        if base is None:
            return "each walks an axis that the other does not have"
        if any(a not in axes for a in joined.reduced):
            return "one reduces an axis of a single element"
        over = frozenset(axes[a] for a in joined.reduced if a in axes)
        if over == base.reduced or not over or not base.reduced:
            union = self._union(base, joined, axes, over | base.reduced, (first, second))
            return union if isinstance(union, str) else Plan(union)
        return "they reduce different axes" if base is not one else self._with_totals(one, other, axes, (first, second))

    def _axes(self, one: Cluster, other: Cluster, through: Sequence[Tensor]) -> dict[int, int] | str:
        """The axes of ``other`` as axes of ``one``, or why they do not correspond."""
        axes = aligned(one, other, through) if through else aligned_by_input(one, other)
        return axes if isinstance(axes, str) else completed(one, other, axes, self._canonical)

    def _must_be_stored(self, one: Cluster, other: Cluster, tensor: Tensor) -> str | None:
        """Why a tensor that ``other`` reads of ``one`` has to be in memory before."""
        if self._root(tensor) is not tensor:
            return f"{tensor.name} is read under another shape"
        if tensor not in one.outputs:
            return f"{tensor.name} is put together from several parts"
        if ANYWHERE in other.maps[tensor]:
            return f"{tensor.name} is read at computed indices"
        if not all(is_plain(m) for m in other.maps[tensor]) or len(other.maps[tensor]) > 1:
            return f"{tensor.name} is read at other elements than the one being computed"
        return None

    def _union(
        self,
        base: Cluster,
        joined: Cluster,
        axes: dict[int, int],
        reduced: frozenset[int],
        members: tuple[int, ...],
        keep: Iterable[Tensor] = (),
    ) -> Cluster | str:
        """Both clusters as one, without what it need not store, or why they are no kernel."""
        if len(base.nodes.keys() | joined.nodes.keys()) > MAX_OPS:
            return f"together they have more than {MAX_OPS} ops"
        union = united(base, joined, axes, reduced)
        self._drop_outputs(union, *members, keep=keep)
        return obstacle(union) or self._update_problem(union) or union

    def _update_problem(self, union: Cluster) -> str | None:
        """Why the union would keep a parameter from being updated in place."""
        fallible = any(node.op.fallible for node in union.nodes)
        for value in union.outputs:
            parameter = self._updated.get(value)
            if parameter is not None and fallible:
                return f"{parameter.name} would be updated by a kernel that may fail for what it finds in the data"
            if parameter is not None and self._reads_elsewhere(union, parameter, value):
                return f"{parameter.name} could no longer be updated in place"
        return None

    def _reads_elsewhere(self, union: Cluster, parameter: Tensor, value: Tensor) -> bool:
        """Whether the kernel reads a parameter anywhere but where, and before, it writes the new value."""
        reads = [t for t in union.reads() if self._root(t) is parameter]
        if any(t is not parameter or set(union.maps[t]) != set(union.maps[value]) for t in reads):
            return True
        return Stages(union).reads_after_store(parameter, value)

    def _drop_outputs(self, union: Cluster, *members: int, keep: Iterable[Tensor] = ()) -> None:
        """Forget stores that nobody outside reads, nor those who read ``keep``."""
        kept = set(keep)
        for tensor in list(union.outputs):
            readers = set(self._readers.get(tensor, ())) - set(members)
            if not readers and tensor not in self._required and tensor not in kept:
                del union.outputs[tensor]
        union.trim()

    # A kernel that makes totals for another one.

    def _with_totals(self, one: Cluster, other: Cluster, axes: dict[int, int], members: tuple[int, ...]) -> Plan | str:
        """Have a row-wise kernel make the totals of the other, which reduces all outer axes."""
        parts = halves(one, other, axes)
        if isinstance(parts, str):
            return parts
        part, rest = parts
        union = self._union(one, part, axes, one.reduced, members, rest.reads())
        return union if isinstance(union, str) else Plan(union, rest)

    def _total_after_product(self, number: int) -> None:
        """Let a kernel that sums the rows of a matrix product make totals per block of rows, so that it can follow the
        product block by block.
        """
        unit = self._units[number]
        if not isinstance(unit, Cluster) or not unit.reduced or unit.combined:
            return
        kept = [a for a, e in enumerate(unit.frame) if e != 1 and a not in unit.reduced]
        if len(unit.reduced) != 1 or len(kept) != 1:
            return
        (rows,), (row,) = unit.reduced, kept
        products = [t for t in unit.reads() if t.node.op.kind is Kind.MATMUL and list(unit.maps[t]) == [(rows, row)]]
        if not products:
            return
        walk = Cluster((unit.frame[rows], unit.frame[row]), frozenset({1}))
        plan = self._with_totals(walk, unit, {rows: 0, row: 1}, (number,))
        if isinstance(plan, str):
            return
        assert plan.rest is not None
        self._forget(number)
        self._units.append(plan.kernel)
        self._units[number] = plan.rest
        for each in (number, len(self._units) - 1):
            self._note(each)
