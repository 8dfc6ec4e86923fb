"""Binding: a program at known extents becomes the runner's table, argument words and address patches. No
compilation.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.dims import Symbol
from graphc.errors import DeviceError
from passes.chains import Chain, Chaining
from passes.memory import Spans, lifetimes, place_all
from passes.program import Call, GemmCall, LoopCall, Operand, Program, RoutineCall, loops_of
from passes.waves import Steps, arrange, may_fail, not_awaited, one_by_one
from runtime.cpu import grid as grids
from runtime.cpu.outline import GEMM_AT, NOWHERE, Outline
from runtime.cpu.products import Blocks, Product, Split, Splits, blocks_of, gemm_words, needs_scratch
from runtime.cpu.routines import ROUTINES, RoutineGrid
from runtime.cpu.runner_source import CHAIN, COLUMNS
from runtime.cpu.streaming import flush_address, worth_streaming

Array = np.ndarray[Any, Any]
MAX_BLAS = 2**31 - 1  # extents and distances are 32-bit integers there
COPY_BLOCK = 2**18  # bytes


@dataclass(frozen=True)
class Bound:
    """A program ready to run: everything but the addresses of ``bases``, which the runner fills in."""

    table: Array
    words: Array
    patches: Array
    scalars: Array
    arena_size: int
    output_shapes: tuple[tuple[int, ...], ...]
    largest_live: int
    scratch: bool = False
    args: tuple[int, ...] = ()
    scalars_address: int = 0

    def __post_init__(self) -> None:
        """The runner's leading arguments, whose addresses are looked up once."""
        table, words, patches = (int(a.ctypes.data) for a in (self.table, self.words, self.patches))
        object.__setattr__(self, "args", (table, len(self.table), words, patches, len(self.patches)))
        object.__setattr__(self, "scalars_address", int(self.scalars.ctypes.data))


class Binder:
    """Binds one program. ``slots`` numbers the buffers whose addresses come from outside (feeds, parameters,
    constants, outputs).
    """

    def __init__(
        self, program: Program, addresses: Mapping[int, int], slots: Mapping[int, int], threads: int, products: Splits
    ) -> None:  # fmt: skip
        self.program = program
        self.addresses = addresses
        self.threads = threads
        self.products = products
        self.costs = [_cost(c) for c in program.calls]
        self.outline = Outline(program, slots)
        self.heads = [(addresses[id(c)], self.outline.starts[id(c)], int(may_fail(c))) for c in program.calls]
        self.grids = {
            id(call): grids.loop_grid(call.kernel, tuple(int(e) for e in call.axes), cost)
            for call, cost in zip(program.calls, self.costs, strict=True)
            if isinstance(call, LoopCall) and all(isinstance(e, int) for e in call.axes)
        }  # of calls that are cut the same in every binding
        self.free = not_awaited(program.calls)
        self.chaining = Chaining(program.calls, grids.SMALL_CALL, grids.PARALLEL_WORK, grids.CHAIN_WORK)
        self._lives: tuple[Steps, Spans] = ((), {})

    def bind(self, values: Mapping[Symbol, int], *, waves: bool = True) -> Bound:
        """The program at these extents; without ``waves`` the calls run one by one, in order, those of a
        chain cut as they are in it.
        """
        return _Binding(self, values, waves).finish()

    def sizes(self, values: Mapping[Symbol, int]) -> dict[int, int]:
        """Bytes of every buffer at these extents, by its id."""
        return _Binding(self, values).sizes

    def steps(self, values: Mapping[Symbol, int]) -> Steps:
        """The calls in the order in which they run at these extents."""
        return _Binding(self, values).steps

    def lives(self, steps: Steps) -> Spans:
        """Lifetimes of the temporaries; most bindings have the steps of the one before."""
        known, spans = self._lives
        if known != steps:
            spans = lifetimes(self.program.calls, steps)
            self._lives = steps, spans
        return spans


def _cost(call: Call) -> float:
    """Work for each element of a loop kernel, or of a product's epilogue."""
    return sum(grids.work_per_element(loop.kernel) for loop in loops_of(call))


class _Binding:
    def __init__(self, binder: Binder, values: Mapping[Symbol, int], waves: bool = True) -> None:
        self._binder = binder
        self._outline = binder.outline
        self._addresses = binder.addresses
        self._products = binder.products
        self._numbers = self._outline.numbers(values)
        self._grids: dict[int, grids.Grid] = {}
        self._gemms: dict[int, tuple[Product, Split, Blocks]] = {}
        self._routines: dict[int, RoutineGrid] = {}
        calls = binder.program.calls
        for call, cost in zip(calls, binder.costs, strict=True):
            self._cut(call, cost)
        self.sizes = self._outline.sizes(self._numbers)
        self._work = [self._work_of(call) for call in calls]
        steps = self._arranged(calls)
        self.steps = steps if waves else one_by_one(calls)
        self._scratch = False

    def _arranged(self, calls: Sequence[Call]) -> Steps:
        """The order in which calls run, some of them side by side; those of a chain are cut into its blocks."""
        limits = (grids.SMALL_CALL, grids.WAVE_WORK)
        deep = {call for call, (_, split, _) in self._gemms.items() if split.along_k}
        free = self._binder.free
        if deep:  # the threads share memory for one such product at a time
            free = [alone and id(call) not in deep for alone, call in zip(free, calls, strict=True)]
        steps = arrange(calls, self._work, *limits, free)
        chaining = self._binder.chaining
        rows = [0 if along is None else self._number(along.extent) for along in chaining.rows]
        steps = chaining.chained(steps, rows, self._work, self.sizes)
        chains = [step for step in steps if isinstance(step, Chain)]
        for chain in chains:
            blocks = Blocks(chain.block, chain.blocks, False, chain.blocks)
            for number in chain:
                self._cut_rows(calls[number], blocks, chain.rows)
        if chains:
            self.sizes = self._outline.sizes(self._numbers)
        return steps

    def _cut_rows(self, call: Call, blocks: Blocks, rows: int) -> None:
        if isinstance(call, GemmCall):
            product, split, _ = self._gemms[id(call)]
            self._gemms[id(call)] = product, Split(split.library, False, blocks.count), blocks
            if call.epilogue is not None:
                self._note(call.epilogue, grids.following_grid(call.epilogue.kernel, blocks, rows, product.n))
        elif isinstance(call, LoopCall):
            columns = math.prod([self._number(e) for e in call.axes]) // rows
            self._note(call, grids.following_grid(call.kernel, blocks, rows, columns))

    def finish(self) -> Bound:
        outline, numbers = self._outline, self._numbers
        plan = place_all(self._binder.lives(self.steps), self.sizes, len(self.steps))
        self._words = [numbers[place] for place in outline.source]
        for word, shape in outline.parts:
            self._words[word] = math.prod([numbers[place] for place in shape])
        for word, buffer in outline.flushes:
            self._words[word] = flush_address() if worth_streaming(buffer, self.sizes[buffer.id]) else 0
        blocks = [self._fill(call) for call in self._binder.program.calls]
        table = self._table(blocks)
        offsets = {**plan.offsets, NOWHERE: 0}
        patches = outline.patches.copy()
        patches[:, 2] = [offsets[buffer] + numbers[place] * factor for buffer, place, factor in outline.addresses]
        shapes = tuple([tuple([numbers[place] for place in shape]) for shape in outline.outputs])
        words = np.array(self._words or [0], np.int64)
        return Bound(
            table, words, patches, outline.scalars(numbers), plan.size, shapes, plan.largest_live, self._scratch
        )

    def _table(self, blocks: Sequence[int]) -> Array:
        """Rows for the calls, each of so many blocks, in the order of the steps."""
        threads, rows = self._binder.threads, []
        for step in self.steps:
            if isinstance(step, Chain):
                rows += self._chain(step)
            elif len(step) > 1:
                rows += self._wave(step)
            for i in step:
                address, start, check = self._binder.heads[i]
                rows.append([address, start, blocks[i], grids.ways(self._work[i], blocks[i], threads), check])
        return np.array(rows, np.int64).reshape(-1, COLUMNS)

    def _chain(self, chain: Chain) -> list[list[int]]:
        ways = grids.ways(sum(self._work[i] for i in chain), chain.blocks, self._binder.threads)
        check = self._binder.heads[chain[-1]][2]
        return [[0, CHAIN, len(chain), ways, check]] if ways > 1 else []

    def _wave(self, step: Sequence[int]) -> list[list[int]]:
        """The row before those of a wave, and how its calls are shared: as much work for each thread as can be."""
        ways = min(self._binder.threads, len(step))
        if ways < 2:
            return []
        done = list(itertools.accumulate(self._work[i] for i in step))
        shares = [bisect.bisect_left(done, done[-1] * way / ways) + 1 for way in range(1, ways)]
        row = [0, len(self._words), len(step), ways, 0]
        self._words += [0, *shares, len(step)]
        return [row]

    # Numbers.

    def _number(self, extent: Any) -> int:
        return extent if type(extent) is int else self._numbers[self._outline.place(extent)]

    def _work_of(self, call: Call) -> float:
        """Simple operations, roughly."""
        if isinstance(call, LoopCall):
            return self._grids[id(call)].work
        if isinstance(call, GemmCall):
            return self._gemms[id(call)][0].work
        if isinstance(call, RoutineCall):
            return self._routines[id(call)].work
        return self.sizes[call.source.id] / 4

    def _cut(self, call: Call, cost: float) -> None:
        """Cut a call into blocks; partial results have as many slices."""
        if isinstance(call, LoopCall):
            grid = self._binder.grids.get(id(call))
            if grid is None:
                grid = grids.loop_grid(call.kernel, tuple([self._number(e) for e in call.axes]), cost)
            self._note(call, grid)
        elif isinstance(call, GemmCall):
            product = self._product(call, cost)
            split = self._products.split(product, self._addresses[id(call)])
            blocks = blocks_of(product, split)
            self._gemms[id(call)] = product, split, blocks
            if call.epilogue is not None:
                self._note(call.epilogue, grids.following_grid(call.epilogue.kernel, blocks, product.m, product.n))
        elif isinstance(call, RoutineCall):
            self._routines[id(call)] = ROUTINES[call.routine].grid(tuple([self._number(e) for e in call.sizes]))

    def _note(self, call: LoopCall, grid: grids.Grid) -> None:
        self._grids[id(call)] = grid
        for buffer in call.writes:
            if buffer.kind == "partial":
                self._numbers[self._outline.splits[buffer.id]] = grid.splits

    # Words that depend on how a call is cut. Each of these returns the number of blocks.

    def _fill(self, call: Call) -> int:
        start = self._outline.starts[id(call)]
        if isinstance(call, LoopCall):
            return self._loop(call, start)
        if isinstance(call, GemmCall):
            return self._gemm(call, start)
        if isinstance(call, RoutineCall):
            grid = self._routines[id(call)]
            first = start + len(call.sizes)
            self._words[first : first + len(grid.words)] = grid.words
            return grid.blocks
        size = self.sizes[call.source.id]
        self._words[start : start + 2] = size, COPY_BLOCK
        return math.ceil(size / COPY_BLOCK)

    def _loop(self, call: LoopCall, start: int) -> int:
        grid = self._grids[id(call)]
        first = start + len(call.kernel.roles)  # behind the extents of the axes
        self._words[first : first + 4] = grid.rows, grid.cols, grid.col_blocks, grid.per_split
        return grid.blocks

    def _product(self, call: GemmCall, cost: float) -> Product:
        m, n, k, *batch = (self._number(e) for e in (call.m, call.n, call.k, *call.batch))
        trans_a, lda = self._stored(call.a, call.trans_a, m, k)
        trans_b, ldb = self._stored(call.b, call.trans_b, k, n)
        shared = [bool(batch) and not any(map(self._number, o.strides[:-1])) for o in (call.a, call.b)]
        form = "" if call.epilogue is None else grids.epilogue_form(call.epilogue.kernel, m)
        return Product(
            call.c.dtype, m, n, k, math.prod(batch), (trans_a, trans_b),
            (lda > max(m if trans_a else k, 1), ldb > max(k if trans_b else n, 1)), (shared[0], shared[1]),
            call.beta != 0, form, cost,
        )  # fmt: skip

    def _stored(self, operand: Operand, trans: bool, rows: int, columns: int) -> tuple[bool, int]:
        """How BLAS is told that an operand of so many rows and columns is stored: whether transposed, and its leading
        dimension.
        """
        leading = self._number(operand.strides[-1])
        if trans and rows == 1 and leading == 1:  # a vector is its own transpose, and BLAS slower where it transposes
            trans, leading = False, columns
        return trans, max(leading, rows if trans else columns, 1)  # what BLAS wants even of a matrix with but one row

    def _gemm(self, call: GemmCall, start: int) -> int:
        product, split, blocks = self._gemms[id(call)]
        m, n, k, epilogue = product.m, product.n, product.k, call.epilogue
        item = call.c.dtype.itemsize
        lda, ldb = self._stored(call.a, call.trans_a, m, k)[1], self._stored(call.b, call.trans_b, k, n)[1]
        widest = max(m, n, k, lda, ldb)
        if widest > MAX_BLAS and not self._products.libraries[split.library].own:
            raise DeviceError(f"the product at {call.nodes[0].where} has an extent of {widest}; BLAS takes {MAX_BLAS}")
        extents = [self._number(e) for e in call.batch]
        along_a, along_b = ([self._number(e) * item for e in o.strides[:-1]] for o in (call.a, call.b))
        batch = list(zip(extents, along_a, along_b, strict=True))
        library = self._products.libraries[split.library]
        self._scratch |= needs_scratch(product, split)
        words = gemm_words(product, split, blocks, library, (lda, ldb), batch[::-1])
        self._words[start : start + len(words)] = words
        if epilogue is not None:
            first = self._outline.starts[id(epilogue)]
            self._words[start + GEMM_AT["epilogue"]] = self._addresses[id(epilogue)]
            self._words[start + GEMM_AT["epilogue_words"]] = first - start
            self._loop(epilogue, first)
        return blocks.calls
