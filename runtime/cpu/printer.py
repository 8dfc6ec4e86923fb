"""From a loop kernel to the source of a Numba function with the kernel ABI.

``kernel(args, scratch, lo, hi)`` runs blocks ``lo`` to ``hi``. A block is a range of rows (points of the outer
``p`` axes) and, where the innermost axis is parallel, a range of columns; in a split reduction, a range of the reduced
axes. Values are computed as far out as they can be: once per call, once per row, or per element.

Sums along a row go into lanes (rows.py), sums over outer axes into one sum per column, in order, which vectorise as a
plain elementwise loop. Neither depends on threads.

A large result may be written past the cache (streaming.py): stores go to ``o`` instead of ``p``, a pointer to a strip
of the result, or to a buffer for one.
"""

from __future__ import annotations

import functools

from passes.loop_ir import LoopKernel
from runtime.cpu import scalars
from runtime.cpu.rows import Instrs, RowPrinter
from runtime.cpu.scalars import LANES
from runtime.cpu.streaming import STRIP
from runtime.cpu.tiling import DEEP, WIDE

COLUMNS = 4096  # columns at most that a block of a reduction over outer axes adds up at a time
COLUMN_BYTES = 2**15  # of their sums, which stay on the stack and in the first-level cache


@functools.lru_cache(1024)
def block_columns(kernel: LoopKernel) -> int:
    """Columns that a block of a reduction over outer axes adds up at a time: whole rows are read fastest."""
    size = sum(i.dtype.itemsize for i in kernel.instructions() if i.op == "reduce")
    return max(LANES, min(COLUMNS, COLUMN_BYTES // max(size, 1) // LANES * LANES))


def kernel_source(kernel: LoopKernel, name: str) -> str:
    """Python source of a module that defines the kernel as function ``name``."""
    return _Printer(kernel, name).source()


class _Printer(RowPrinter):
    def __init__(self, kernel: LoopKernel, name: str) -> None:
        super().__init__(kernel)
        self.name = name

    def source(self) -> str:
        comment = "".join(f"# {line}\n" for line in self.kernel.text.splitlines())
        with self.block(f"def {self.name}(args, scratch, lo, hi):"):
            self._prologue()
            with self.block("for block in range(lo, hi):"):
                self._grid()
            self._report_guards()
            if self.layout.flush:
                flush = " | ".join(f"f{n}" for n in self.layout.flush)
                with self.block(f"if {flush} != 0:"):
                    self.line(f"call_kernel({flush}, 0, 0, 0, 0)")
        return f"{comment}{scalars.HEADER}\n\n" + "\n".join(self.lines) + "\n"

    def _prologue(self) -> None:
        layout, kernel = self.layout, self.kernel
        self.line("w = ptr_int64(args)")
        for axis in range(len(kernel.roles)):
            self.line(f"n{axis} = w[{axis}]")
        for offset, label in enumerate(("rows", "cols", "col_blocks", "per_split")):
            self.line(f"{label} = w[{layout.grid + offset}]")
        for number, arg in enumerate(kernel.args):
            self.line(f"p{number} = ptr_{scalars.storage(arg.dtype)}(w[{layout.address[number]}])")
        for (number, axis), word in layout.stride.items():
            self.line(f"s{number}_{axis} = w[{word}]")
        for number, word in layout.split_stride.items():
            self.line(f"s{number}_split = w[{word}]")
        for number in self.streamed:
            dtype = kernel.args[number].dtype
            self.line(f"f{number} = w[{layout.flush[number]}]")
            self.line(f"b{number} = address(stack({scalars.stored(scalars.zero(dtype), dtype)}, {STRIP}))")
        for number in self.tiled:
            dtype = kernel.args[number].dtype
            self.line(f"tile{number} = stack({scalars.stored(scalars.zero(dtype), dtype)}, {DEEP * WIDE})")
        for k in range(kernel.extents):
            self.line(f"e{k} = w[{layout.extents + k}]")
        for k in range(kernel.guards):
            self.line(f"bad{k} = int64(0)")
        for number, instr in kernel.numbered[0]:
            if self.levels[number] == 0 and instr.op not in ("store", "guard", "reduce", "pick"):
                self._instruction(number, instr, {})
                self.hoisted.add(number)
        for number, instr in self._reductions():
            size = block_columns(kernel) if self.columns else LANES
            self.line(f"acc{number} = stack({scalars.identity(instr.attr, instr.dtype)}, {size})")

    def _report_guards(self) -> None:
        for k in range(self.kernel.guards):
            with self.block(f"if bad{k} != 0:"):
                self.line(f"ptr_int64(w[{self.layout.guards + k}])[0] = 1")

    # Blocks and rows.

    def _grid(self) -> None:
        if self.columns:
            self.line("row_block = block // col_blocks")
            self.line("c_lo = (block - row_block * col_blocks) * cols")
            self.line(f"c_hi = min(c_lo + cols, n{self.last})")
        else:
            self.line("row_block = block")
        if self.kernel.split:
            self._split_range()
            self._row({})
            return
        self._full_range()
        if not self.outer:
            self._row({})
            return
        total = " * ".join(f"n{a}" for a in self.outer)
        if self.tiled:
            self._tiles(total)
            return
        self._start_totals()
        with self.block(f"for row in range(row_block * rows, min(row_block * rows + rows, {total})):"):
            self._row(self._decompose("row", self.outer))
        for number in self._totals(single=True):
            self.line(f"p{number}[row_block] = t{number}")

    def _start_totals(self) -> None:
        for number in self._totals(single=True):
            self.line(f"t{number} = {self._total_identity(number)}")
        for number in self._totals(single=False):
            size = f"s{number}_split"
            with self.block(f"for k in range(row_block * {size}, row_block * {size} + {size}):"):
                self.line(f"p{number}[k] = {self._total_identity(number)}")

    def _total_identity(self, number: int) -> str:
        arg = self.kernel.args[number]
        return scalars.identity(arg.combine, arg.dtype)

    def _split_range(self) -> None:
        """The part of the reduced range that this block sums: of the leading reduced axes, or of the only one."""
        if self.columns or len(self.reduced) > 1:
            leading = self.reduced if self.columns else self.reduced[:-1]
            total = " * ".join(f"n{a}" for a in leading)
            self.line("q_lo = row_block * per_split")
            self.line(f"q_hi = min(q_lo + per_split, {total})")
            if not self.columns:
                self.line("r_lo = 0")
                self.line(f"r_hi = n{self.last}")
        else:
            self.line("r_lo = row_block * per_split")
            self.line(f"r_hi = min(r_lo + per_split, n{self.last})")

    def _full_range(self) -> None:
        if not self.reduced:
            return
        leading = self.reduced if self.columns else self.reduced[:-1]
        if leading:
            self.line("q_lo = 0")
            self.line(f"q_hi = {' * '.join(f'n{a}' for a in leading)}")
        if not self.columns:
            self.line("r_lo = 0")
            self.line(f"r_hi = n{self.last}")

    def _row(self, outer: dict[int, str]) -> None:
        for stage in self.kernel.numbered:
            self._stage(stage, outer)

    def _tiles(self, total: str) -> None:
        """Rows and columns in tiles. The rows of one have all outer indices but the last in common."""
        self.line("row = row_block * rows")
        self.line(f"row_hi = min(row + rows, {total})")
        with self.block("while row < row_hi:"):
            outer, around = self._decompose("row", self.outer), self.outer[-1]
            first = outer[around]
            self.line(f"deep = min({DEEP}, row_hi - row, n{around} - {first})")
            outer[around] = f"({first} + r)"
            with self.block(f"for c_tile in range(c_lo, c_hi, {WIDE}):"):
                self.line(f"c_end = min(c_tile + {WIDE}, c_hi)")
                for n in self.tiled:
                    with self.block("for j in range(c_tile, c_end):"), self.block("for r in range(deep):"):
                        place = self._offset(n, {**outer, self.last: "j"})
                        self.line(f"tile{n}[r * {WIDE} + j - c_tile] = p{n}[{place}]")
                with self.block("for r in range(deep):"):
                    self._row(outer)
            self.line("row = row + deep")

    # One stage.

    def _stage(self, stage: Instrs, outer: dict[int, str]) -> None:
        reductions = [(n, i) for n, i in stage if i.op == "reduce"]
        inner = [(n, i) for n, i in stage if n in self.kernel.looped or i.op == "reduce"]
        over_rows = self.columns and bool(reductions)
        for number, instr in stage:
            if self.levels[number] < 2 and instr.op != "reduce" and number not in self.hoisted and not over_rows:
                self._instruction(number, instr, outer)
        if not inner:
            return
        if over_rows:
            self._sum_columns(stage, reductions, outer)
        elif self.columns:
            self._along(inner, *(("c_tile", "c_end") if self.tiled else ("c_lo", "c_hi")), outer)
        else:
            self._walk_row(inner, reductions, outer)

    def _sum_columns(self, stage: Instrs, reductions: Instrs, outer: dict[int, str]) -> None:
        """One sum per column, over the outer reduced axes in order."""
        with self.block("for l in range(c_hi - c_lo):"):
            for number, instr in reductions:
                self.line(f"acc{number}[l] = {scalars.identity(instr.attr, instr.dtype)}")
        with self.block("for q in range(q_lo, q_hi):"):
            indices = {**outer, **self._decompose("q", self.reduced)}
            per_row = [(n, i) for n, i in stage if self.levels[n] < 2 and i.op != "reduce"]
            self._instructions(per_row, indices)
            inner = [(n, i) for n, i in stage if self.levels[n] == 2]
            with (
                self._strips(inner, "c_lo", "c_hi", indices) as (first, end),
                self.block(f"for j in range({first}, {end}):"),
            ):
                self.line("l = j - c_lo")
                self._instructions(inner, {**indices, self.last: "j"})
                self._accumulate(reductions)
