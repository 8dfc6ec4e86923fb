"""The CPU backend: compiles a graph's kernels and runs its program, one native call a run."""

from __future__ import annotations

import contextlib
import gc
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.dims import Symbol, Unifier, evaluate
from graphc.errors import CompilerError
from graphc.node import Tensor
from passes.gradient import expand_gradients
from passes.graph import Graph
from passes.lower import lower
from passes.options import CompileOptions
from passes.pipeline import optimize
from passes.program import Buffer, Call, GemmCall, LoopCall, Program
from runtime.cpu import cache, threads
from runtime.cpu.binding import ARENA, FIRST, SCALARS, STATUS, Binder, Bound
from runtime.cpu.fixed_kernels import copy_source, gemm_source
from runtime.cpu.printer import kernel_source
from runtime.cpu.runner import program_runner
from runtime.reference import evaluate_graph, leaf_values
from runtime.store import ParameterStore, aligned_empty

Array = np.ndarray[Any, Any]
BINDINGS = 128  # shapes remembered per program


def available_threads() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Arena:
    """Memory for temporaries, shared by the programs of one session, whose runs take turns. It only grows."""

    def __init__(self) -> None:
        self._memory = aligned_empty((0,), np.dtype(np.uint8))
        self.address = 0

    def reserve(self, size: int) -> int:
        """Address of at least ``size`` bytes."""
        if size > self._memory.size or not self.address:
            self._memory = aligned_empty((max(size, 64),), np.dtype(np.uint8))
            self.address = int(self._memory.ctypes.data)
        return self.address


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """No garbage collection while a compilation makes many objects that live: its cost grows faster than their
    number.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class CpuBackend:
    """Makes programs for one session; ``threads`` is the most that one call is shared among."""

    def __init__(self, thread_count: int | None) -> None:
        self._threads = thread_count or available_threads()
        self._counters = cache.Counters()
        self._arena = Arena()
        self._options = CompileOptions.from_environment()
        threads.blas_threads.acquire()
        self._release = weakref.finalize(self, threads.blas_threads.release)  # also when nobody calls close
        self._release.atexit = False

    def __call__(
        self, graph: Graph, unifier: Unifier, placeholders: Sequence[Tensor], store: ParameterStore
    ) -> CpuProgram:
        run = program_runner()
        with _collector_paused():
            optimized = optimize(graph, self._options, unifier)
            program = lower(optimized, unifier)
        addresses = [compile_call(call, self._counters).address for call in program.calls]
        return CpuProgram(graph, program, addresses, placeholders, store, self._arena, self._threads, run)

    def stats(self) -> dict[str, int]:
        """Kernels that this session had compiled, and that it found compiled on disk."""
        return {"kernels_compiled": self._counters.compiled, "kernels_loaded": self._counters.loaded}

    def close(self) -> None:
        """Give back the BLAS thread setting."""
        self._release()


def compile_call(call: Call, counters: cache.Counters) -> cache.Compiled:
    """The machine code of a call's kernel."""
    if isinstance(call, LoopCall):
        name = cache.kernel_name(call.kernel.label, call.kernel.text)
        found = cache.kernel_cache.kernels.get(name)
        return found or cache.kernel_cache.get(name, kernel_source(call.kernel, name), counters)
    label, text = gemm_source(call.c.dtype) if isinstance(call, GemmCall) else copy_source()
    name = cache.kernel_name(label, text)
    return cache.kernel_cache.get(name, text.replace("{name}", name), counters)


class CpuProgram:
    """A compiled program of one session."""

    def __init__(
        self, graph: Graph, program: Program, addresses: Sequence[int], placeholders: Sequence[Tensor],
        store: ParameterStore, arena: Arena, thread_count: int, run: Any,
    ) -> None:  # fmt: skip
        self._graph = graph
        self.program = program
        self._placeholders = placeholders
        self._store = store
        self._arena = arena
        self._run = run
        slots = {b.id: FIRST + i for i, b in enumerate(b for b in program.buffers if _is_external(b))}
        self._binder = Binder(program, addresses, slots, thread_count)
        self._bases = np.zeros(FIRST + len(slots), np.int64)
        self._status = np.zeros(1, np.int64)
        self._bases_address, self._status_address = _address(self._bases), _address(self._status)
        self._bases[STATUS] = self._status_address
        place = {t: i for i, t in enumerate(placeholders)}
        self._feeds: list[tuple[int, int]] = []
        self._output_slots = [slots[o.buffer.id] for o in program.outputs]
        self._output_types = [o.buffer.dtype for o in program.outputs]
        self._constants: list[Array] = []
        for buffer in program.buffers:
            if buffer.kind == "feed":
                assert buffer.tensor is not None
                self._feeds.append((slots[buffer.id], place[buffer.tensor]))
            elif buffer.kind == "parameter":
                assert buffer.tensor is not None
                self._bases[slots[buffer.id]] = store.array(buffer.tensor).ctypes.data
            elif buffer.kind == "constant":
                kept = aligned_empty(program.constants[buffer.id].shape, buffer.dtype)
                kept[...] = program.constants[buffer.id]
                self._constants.append(kept)
                self._bases[slots[buffer.id]] = kept.ctypes.data
        self._bound: dict[tuple[int, ...], Bound] = {}

    @property
    def kernels(self) -> tuple[Call, ...]:
        """The calls of the program in order."""
        return self.program.calls

    def bound(self, values: Mapping[Symbol, int]) -> Bound:
        """The program at these extents; planned on first use."""
        key = tuple(values.values())
        found = self._bound.get(key)
        if found is None:
            found = self._binder.bind(values)
            if len(self._bound) >= BINDINGS:
                self._bound.pop(next(iter(self._bound)))
            self._bound[key] = found
        return found

    def run(self, values: Mapping[Symbol, int], feeds: Sequence[Array]) -> list[Any]:
        """Outputs in order, in arrays of their own."""
        bound = self.bound(values)
        bases = self._bases
        bases[ARENA] = self._arena.reserve(bound.arena_size)
        bases[SCALARS] = bound.scalars_address
        for slot, place in self._feeds:
            bases[slot] = _address(feeds[place])
        outputs = []
        for slot, shape, dtype in zip(self._output_slots, bound.output_shapes, self._output_types, strict=True):
            array = np.empty(shape, dtype)
            bases[slot] = _address(array)
            outputs.append(array)
        self._status[0] = 0
        failed = threads.launch(self._run, *bound.args, self._bases_address, self._status_address, 0)
        if failed >= 0:
            self._explain_failure(values, feeds)
        shaped = []
        for array, output in zip(outputs, self.program.outputs, strict=True):
            if output.shape != output.buffer.shape:
                array = array.reshape(tuple(evaluate(e, values) for e in output.shape))
            shaped.append(array[()])
        return shaped

    def _explain_failure(self, values: Mapping[Symbol, int], feeds: Sequence[Array]) -> None:
        """Run the reference on the same feeds: it stops at the node that failed, and says what it found."""
        graph = expand_gradients(self._graph)
        evaluate_graph(graph, values, leaf_values(graph, self._placeholders, feeds, self._store))
        raise CompilerError("a kernel reported a failure that the reference does not see; please report this graph")


def _address(array: Array) -> int:
    found: int = array.__array_interface__["data"][0]
    return found


def _is_external(buffer: Buffer) -> bool:
    return buffer.kind in ("feed", "parameter", "constant", "output")
