"""Merging fused kernels that share data: the second half of fusion.

The first half (``fuse.py``) puts a node with its readers, so that two kernels of which neither reads all of the other's
result stay apart, although they walk the same elements: a value and its gradient, sums over different axes, a row-wise
chain and the sum of its rows. Here pairs of kernels that share a tensor become one, when

- they walk the same axes, and reduce the same of them (or one of them reduces none);
- or one reduces the row and the other all outer axes: the first then makes partial *totals* per block of rows, and
  the second becomes the kernel that combines them; so do both where one reduces all outer axes and the other all;
- what one stores and the other reads is read at the element at which it is stored;
- no third kernel stands between them.

Every question has an answer in words, which ``explain`` shows for neighbours that stay apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from graphc.dims import Extent
from graphc.node import Node, Tensor
from graphc.ops.linalg import MATMUL
from passes.cluster import ANYWHERE, MAX_OPS, Cluster, is_plain, walked
from passes.order import TopologicalOrder
from passes.stages import Stages
from passes.union import (
    aligned,
    aligned_by_input,
    by_rows,
    completed,
    halves,
    memory_order,
    obstacle,
    same_combination,
    united,
    wide_axes,
    wider,
)

ROUNDS = 4
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
    """The merged kernel, and what remains of the second one, and of the first, when the kernel only makes their
    totals.
    """

    kernel: Cluster
    rest: Cluster | None = None
    own: Cluster | None = None


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
        self._combining: dict[int, list[int]] = {}  # for each unit those that combine its totals
        self._plans: dict[int, dict[tuple[int, int], Plan | str]] = {}  # for each unit those of its pairs, as they are
        for number, unit in enumerate(units):
            if isinstance(unit, Cluster):
                unit.frame = tuple(canonical(e) for e in unit.frame)
            self._note(number)

    def run(self) -> None:
        """Merge until nothing more can be, at most a few rounds."""
        self._merge()
        converted = [self._total_after_product(number) for number in range(len(self._units))]
        if any(converted):
            self._merge()

    def _merge(self) -> None:
        for _ in range(ROUNDS):
            merged = [self._around(tensor) for tensor in list(self._readers)]
            if not any(merged):
                break

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
            self._combining[second] = self._combining.pop(first, []) + self._combining.get(second, [])
        for number in changed:
            self._note(number)
        if plan.rest is not None:
            self._order.replace_readers(second, self._readers_of(second))
            self._join_combinations(first, second)
        if plan.own is not None:
            self._add_rest(first, plan.own)
        return True

    def _readers_of(self, number: int) -> set[int]:
        return {u for t in self._makes(number) for u in self._readers.get(t, ()) if u != number}

    def _add_rest(self, maker: int, rest: Cluster) -> None:
        """A new unit, which combines totals that another one makes."""
        number = len(self._units)
        self._units.append(rest)
        self._note(number)
        self._order.add(self._readers_of(number), behind=maker)
        self._join_combinations(maker, number)

    def _join_combinations(self, maker: int, fresh: int) -> None:
        """One kernel combines all totals of one shape that another kernel made."""
        mine = self._units[fresh]
        assert isinstance(mine, Cluster)
        apart = []
        for number in self._combining.get(maker, []):
            other = self._units[number]
            assert isinstance(other, Cluster)
            axes = same_combination(mine, other)
            union = None if axes is None else united(mine, other, axes, mine.reduced)
            if union is None or len(union.nodes) > MAX_OPS or not self._order.contract(number, fresh):
                apart.append(number)
                continue
            for old in (number, fresh):
                self._forget(old)
            self._units[number], self._units[fresh] = None, union
            self._note(fresh)
            mine = union
        self._combining[maker] = [*apart, fresh]

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
        both = self._both_by_rows(base, joined, axes, (first, second))
        if isinstance(both, str):
            return both if base is not one else self._with_totals(one, other, axes, (first, second))
        kernel, *rests = both
        return Plan(kernel, *(reversed(rests) if base is one else rests))

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

    def _both_by_rows(
        self, base: Cluster, joined: Cluster, axes: dict[int, int], members: tuple[int, ...]
    ) -> tuple[Cluster, Cluster, Cluster] | str:
        """One walk over the rows that makes the totals of both clusters, of which one reduces all axes and the other
        all but the row; and what remains of each.
        """
        over = [{a for a in base.reduced if base.frame[a] != 1}, {axes[a] for a in joined.reduced}]
        if max(over, key=len) != set(wide_axes(base)):
            return "they reduce different axes"
        found = by_rows(base, memory_order(base), min(over, key=len), sums_row=True)
        if isinstance(found, str):
            return found
        walk, place = found
        placed = {a: place[b] for a, b in axes.items()}
        mine, theirs = halves(walk, base, place), halves(walk, joined, placed)
        if isinstance(mine, str):
            return mine
        if isinstance(theirs, str):
            return theirs
        (part, rest), (joined_part, joined_rest) = mine, theirs
        kernel = united(walk, part, place, walk.reduced)
        keep = [*rest.reads(), *joined_rest.reads()]
        union = self._union(kernel, joined_part, placed, walk.reduced, members, keep)
        if isinstance(union, str):
            return union
        if not {*rest.outputs, *joined_rest.outputs}.isdisjoint(map(self._root, union.reads())):
            return "one waits for the sums that the other makes"
        return union, rest, joined_rest

    def _total_after_product(self, number: int) -> bool:
        """Let a kernel that sums the rows of a matrix product, or all of it, make totals per block of rows, so that it
        can follow the product block by block.
        """
        unit = self._units[number]
        if not isinstance(unit, Cluster) or not unit.reduced or unit.combined:
            return False
        orders = [order for t in unit.reads() if (order := self._order_of_product(t, unit))]
        if not orders or not unit.reduced >= {*orders[0][:-1]}:
            return False
        found = by_rows(unit, orders[0], orders[0][:-1], sums_row=orders[0][-1] in unit.reduced)
        plan = found if isinstance(found, str) else self._with_totals(found[0], unit, found[1], (number,))
        if isinstance(plan, str):
            return False
        assert plan.rest is not None
        self._forget(number)
        self._units[number] = plan.kernel
        self._note(number)
        self._add_rest(number, plan.rest)
        return True

    def _order_of_product(self, tensor: Tensor, unit: Cluster) -> list[int] | None:
        """The axes of a unit in the order in which a matrix product that it reads makes them: all rows, then the row;
        None where it reads no product, perhaps under another shape, in this way.
        """
        made, maps = self._root(tensor), list(unit.maps[tensor])
        if made.node.op is not MATMUL or len(maps) > 1 or not is_plain(maps[0]):
            return None
        order = walked(maps[0])
        if not order or sorted(order) != wide_axes(unit):
            return None
        return order if self._canonical(unit.frame[order[-1]]) == self._canonical(made.shape[-1]) else None
