"""Binding: a program at known extents becomes the runner's table, argument words and address patches. No
compilation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from graphc.dims import Extent, Symbol, evaluate
from graphc.errors import DeviceError
from graphc.ops.leaf import extent_in
from passes.memory import plan_memory
from passes.program import (
    Buffer,
    Call,
    CopyCall,
    GemmCall,
    LoopCall,
    Operand,
    Program,
    RoutineCall,
    loops_of,
    split_source,
)
from passes.waves import Steps, arrange, one_by_one
from runtime.cpu import grid as grids
from runtime.cpu.fixed_kernels import GEMM_WORDS
from runtime.cpu.layout import layout_of
from runtime.cpu.products import Blocks, Product, Split, Splits, blocks_of, gemm_words
from runtime.cpu.routines import ROUTINES
from runtime.cpu.runner_source import ARENA, COLUMNS, SCALARS, STATUS
from runtime.cpu.streaming import flush_address, worth_streaming

Array = np.ndarray[Any, Any]
MAX_BLAS = 2**31 - 1  # extents and distances are 32-bit integers there


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
        self._program = program
        self._addresses = addresses
        self._slots = slots
        self._threads = threads
        self._products = products
        self._costs = [_cost(c) for c in program.calls]

    def bind(self, values: Mapping[Symbol, int], *, waves: bool = True) -> Bound:
        """The program at these extents; without ``waves`` the calls run one by one, in order."""
        return self._binding(values, waves).finish()

    def sizes(self, values: Mapping[Symbol, int]) -> dict[int, int]:
        """Bytes of every buffer at these extents, by its id."""
        return self._binding(values).sizes

    def steps(self, values: Mapping[Symbol, int]) -> Steps:
        """The calls in the order in which they run at these extents."""
        return self._binding(values).steps

    def _binding(self, values: Mapping[Symbol, int], waves: bool = True) -> _Binding:
        return _Binding(
            self._program, self._addresses, self._slots, self._threads, self._products, self._costs, values, waves
        )  # fmt: skip


def _cost(call: Call) -> float:
    """Work for each element of a loop kernel, or of a product's epilogue."""
    return sum(grids.work_per_element(loop.kernel) for loop in loops_of(call))


class _Binding:
    def __init__(
        self, program: Program, addresses: Mapping[int, int], slots: Mapping[int, int], threads: int,
        products: Splits, costs: Sequence[float], values: Mapping[Symbol, int], waves: bool,
    ) -> None:  # fmt: skip
        self._program = program
        self._addresses = addresses
        self._slots = slots
        self._threads = threads
        self._products = products
        self._costs = costs
        self._values = values
        self._memo: dict[Extent, int] = {}
        self._splits: dict[int, int] = {}
        self._grids: dict[int, grids.Grid] = {}
        self._gemms: dict[int, tuple[Product, Split, Blocks]] = {}
        for call, cost in zip(program.calls, costs, strict=True):
            self._cut(call, cost)
        self.sizes = {b.id: self._bytes(b) for b in program.buffers}
        calls = program.calls
        work = [self._work(call) for call in calls]
        self.steps = arrange(calls, work, grids.WAVE_CALL, grids.WAVE_WORK) if waves else one_by_one(calls)
        self._work_of = {id(call): amount for call, amount in zip(calls, work, strict=True)}
        self._scalars = np.zeros(2 * len(program.calls) + len(program.buffers), np.int64)
        self._scalar_count = 0
        self._scalar_of: dict[Any, int] = {}
        self._words: list[int] = []
        self._patches: list[tuple[int, int, int]] = []
        self._table: list[list[int]] = []

    def finish(self) -> Bound:
        plan = plan_memory(self._program, self.sizes, self.steps)
        self._offsets = plan.offsets
        for step in self.steps:
            calls = [self._program.calls[i] for i in step]
            if len(calls) > 1:
                self._wave(calls)
            for call in calls:
                self._call(call)
        shapes = tuple(tuple(self._number(e) for e in o.shape) for o in self._program.outputs)
        table = np.array(self._table, np.int64).reshape(-1, COLUMNS)
        patches = np.array(self._patches, np.int64).reshape(-1, 3)
        words = np.array(self._words or [0], np.int64)
        return Bound(table, words, patches, self._scalars, plan.size, shapes, plan.largest_live)

    def _call(self, call: Call) -> None:
        if isinstance(call, LoopCall):
            self._loop(call)
        elif isinstance(call, GemmCall):
            self._gemm(call)
        elif isinstance(call, RoutineCall):
            self._routine(call)
        else:
            self._copy(call)

    def _wave(self, calls: Sequence[Call]) -> None:
        """The row before those of a wave, and how its calls are shared: as much work for each thread as can be."""
        ways = min(self._threads, len(calls))
        if ways > 1:
            done = np.cumsum([self._work_of[id(call)] for call in calls])
            shares = np.searchsorted(done, done[-1] * np.arange(1, ways) / ways) + 1
            self._table.append([0, len(self._words), len(calls), ways, 0])
            self._words += [0, *shares.tolist(), len(calls)]

    # Numbers.

    def _work(self, call: Call) -> float:
        """Simple operations, roughly."""
        if isinstance(call, LoopCall):
            return self._grids[id(call)].work
        if isinstance(call, GemmCall):
            return self._gemms[id(call)][0].work
        if isinstance(call, RoutineCall):
            return ROUTINES[call.routine].grid(tuple(self._number(e) for e in call.sizes)).work
        return self.sizes[call.source.id] / 4

    def _number(self, extent: Any) -> int:
        if type(extent) is int:
            return extent
        partial = split_source(extent)
        if partial is not None:
            return self._splits[partial.id]
        found = self._memo.get(extent)
        if found is None:
            found = self._memo[extent] = evaluate(extent, self._values)
        return found

    def _cut(self, call: Call, cost: float) -> None:
        """Cut a call into blocks; partial results have as many slices."""
        if isinstance(call, LoopCall):
            grid = grids.loop_grid(call.kernel, tuple(self._number(e) for e in call.axes), cost)
            self._note(call, grid)
        elif isinstance(call, GemmCall):
            product = self._product(call, cost)
            split = self._products.split(product, self._addresses[id(call)])
            blocks = blocks_of(product, split)
            self._gemms[id(call)] = product, split, blocks
            if call.epilogue is not None:
                grid = grids.epilogue_grid(call.epilogue.kernel, blocks, product.m, product.n)
                self._note(call.epilogue, grid)

    def _note(self, call: LoopCall, grid: grids.Grid) -> None:
        self._grids[id(call)] = grid
        for buffer in call.writes:
            if buffer.kind == "partial":
                self._splits[buffer.id] = grid.splits

    def _bytes(self, buffer: Buffer) -> int:
        count = math.prod(self._number(e) for e in buffer.shape)
        return count * buffer.dtype.itemsize * self._splits.get(buffer.id, 1)

    # Words.

    def _address(self, word: int, buffer: Buffer, element: int = 0) -> None:
        """Have the runner put the address of the buffer's ``element`` at ``word``."""
        skipped = element * buffer.dtype.itemsize
        if buffer.kind in ("temp", "partial"):
            self._patches.append((word, ARENA, self._offsets[buffer.id] + skipped))
        elif buffer.kind == "extent":
            assert buffer.tensor is not None
            node = buffer.tensor.node
            value = extent_in(node, self._number(node.attrs["extent"]))
            self._patches.append((word, SCALARS, 8 * self._scalar(value, buffer.dtype)))
        else:
            self._patches.append((word, self._slots[buffer.id], skipped))

    def _scalar(self, value: float, dtype: Any) -> int:
        """Slot of a scalar that this binding holds."""
        key = (value, dtype)
        slot = self._scalar_of.get(key)
        if slot is None:
            slot = self._scalar_of[key] = self._scalar_count
            self._scalars[slot : slot + 1].view(dtype)[0] = value
            self._scalar_count += 1
        return slot

    def _instruction(self, call: Call, start: int, blocks: int, check: int = 0) -> None:
        ways = grids.ways(self._work_of[id(call)], blocks, self._threads)
        self._table.append([self._addresses[id(call)], start, blocks, ways, check])

    def _loop(self, call: LoopCall) -> None:
        grid = self._grids[id(call)]
        start = self._loop_words(call, grid)
        self._instruction(call, start, grid.blocks, int(call.kernel.guards > 0))

    def _loop_words(self, call: LoopCall, grid: grids.Grid) -> int:
        """The words of a loop kernel; returns the first one's number."""
        kernel, layout = call.kernel, layout_of(call.kernel)
        start = len(self._words)
        words = [0] * layout.size
        words[: len(call.axes)] = [self._number(e) for e in call.axes]
        words[layout.grid : layout.grid + 4] = [grid.rows, grid.cols, grid.col_blocks, grid.per_split]
        for (argument, axis), word in layout.stride.items():
            words[word] = self._number(call.operands[argument].strides[axis])
        for argument, word in layout.split_stride.items():
            words[word] = math.prod(self._number(e) for e in call.operands[argument].buffer.shape)
        for argument, word in layout.flush.items():
            buffer = call.operands[argument].buffer
            words[word] = flush_address() if worth_streaming(buffer, self.sizes[buffer.id]) else 0
        words[layout.extents : layout.extents + kernel.extents] = [self._number(e) for e in call.extents]
        self._words += words
        for argument, operand in enumerate(call.operands):
            self._address(start + layout.address[argument], operand.buffer, self._number(operand.offset))
        for k in range(kernel.guards):
            self._patches.append((start + layout.guards + k, STATUS, 0))
        return start

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

    def _gemm(self, call: GemmCall) -> None:
        product, split, blocks = self._gemms[id(call)]
        m, n, k, epilogue = product.m, product.n, product.k, call.epilogue
        item = call.c.dtype.itemsize
        lda, ldb = self._stored(call.a, call.trans_a, m, k)[1], self._stored(call.b, call.trans_b, k, n)[1]
        widest = max(m, n, k, lda, ldb)
        if widest > MAX_BLAS:
            raise DeviceError(f"the product at {call.nodes[0].where} has an extent of {widest}; BLAS takes {MAX_BLAS}")
        extents = [self._number(e) for e in call.batch]
        along_a, along_b = ([self._number(e) * item for e in o.strides[:-1]] for o in (call.a, call.b))
        batch = list(zip(extents, along_a, along_b, strict=True))
        start = len(self._words)
        library = self._products.libraries[split.library]
        self._words += gemm_words(product, blocks, library, (lda, ldb), batch[::-1])
        place = {name: start + i for i, name in enumerate(GEMM_WORDS)}
        for name, factor in (("alpha", call.alpha), ("beta", call.beta)):
            self._patches.append((place[name], SCALARS, 8 * self._scalar(factor, call.c.dtype)))
        for name, operand in (("a", call.a), ("b", call.b)):
            self._address(place[name], operand.buffer, self._number(operand.offset))
        self._address(place["c"], call.c)
        guarded = False
        if epilogue is not None:
            first = self._loop_words(epilogue, self._grids[id(epilogue)])
            self._words[place["epilogue"]] = self._addresses[id(epilogue)]
            self._words[place["epilogue_words"]] = first - start
            guarded = epilogue.kernel.guards > 0
        self._instruction(call, start, blocks.count, int(guarded))

    def _routine(self, call: RoutineCall) -> None:
        sizes = tuple(self._number(e) for e in call.sizes)
        grid = ROUTINES[call.routine].grid(sizes)
        start = len(self._words)
        operands = (*call.reads, *call.writes)
        self._words += [*sizes, *grid.words, *(0 for _ in operands)]
        for number, buffer in enumerate(operands):
            self._address(start + len(sizes) + len(grid.words) + number, buffer)
        self._instruction(call, start, grid.blocks)

    def _copy(self, call: CopyCall) -> None:
        size = self.sizes[call.source.id]
        block = 2**18
        start = len(self._words)
        self._words += [size, block, 0, 0]
        self._address(start + 2, call.source)
        self._address(start + 3, call.target)
        self._instruction(call, start, math.ceil(size / block))
