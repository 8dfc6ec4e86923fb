"""The CPU backend: compiles a graph's kernels and runs its program, one native call a run."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from graphc.dims import Symbol, Unifier, evaluate
from graphc.errors import CompilerError
from graphc.node import Tensor
from passes.gradient import expand_gradients
from passes.graph import Graph
from passes.lower import lower
from passes.options import CompileOptions
from passes.pipeline import Stage, optimize
from passes.program import Buffer, Call, GemmCall, LoopCall, Program, RoutineCall, epilogue_of
from passes.verify import verify_program
from passes.waves import Steps
from runtime.cpu import blas, cache, kernel_files, threads
from runtime.cpu.autotune import TunedSplits
from runtime.cpu.binding import Binder, Bound
from runtime.cpu.fixed_kernels import copy_source, gemm_source
from runtime.cpu.frame import Arena, Frame, Request, address_of
from runtime.cpu.printer import kernel_source
from runtime.cpu.products import Splits
from runtime.cpu.routines import ROUTINES
from runtime.cpu.runner import COST, clock_address, program_runner, runner_is_compiled
from runtime.cpu.runner_source import DONE, FIRST, TIME_WORDS, WAYS
from runtime.cpu.workers import Team
from runtime.debug import DebuggedProgram
from runtime.profile import Timings
from runtime.reference import evaluate_graph, leaf_values
from runtime.store import ParameterStore, aligned_empty

Array = np.ndarray[Any, Any]
BINDINGS = 128  # shapes remembered per program

log = logging.getLogger("graphc.cache")


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
    """Makes programs for one session; ``thread_count`` is the most that one call is shared among, ``autotune`` has
    the splits of products measured.
    """

    def __init__(self, thread_count: int | None, autotune: bool = False) -> None:
        self._threads = thread_count or threads.available_threads()
        self._counters = cache.Counters()
        self._arena = Arena(self._threads)
        self._options = CompileOptions.from_environment()
        found = blas.libraries(all_usable=autotune)
        self._products = TunedSplits(found, self._threads, program_runner) if autotune else Splits(found)
        self._release: Callable[[], object] | None = None
        if any(library.set_threads == 0 and not library.own for library in found):
            threads.blas_threads.acquire()
            self._release = weakref.finalize(self, threads.blas_threads.release)  # also when nobody calls close
            self._release.atexit = False

    def __call__(
        self, graph: Graph, unifier: Unifier, placeholders: Sequence[Tensor], store: ParameterStore
    ) -> CpuProgram | DebuggedProgram:
        stages: list[Stage] = []
        with _collector_paused():
            optimized = optimize(graph, self._options, unifier, stages.append if self._options.debug else None)
            program = lower(optimized, unifier)
            if self._options.verify:
                verify_program(program, unifier)
        addresses = compile_calls(program.calls, self._counters)
        run = program_runner()
        made = CpuProgram(
            graph, program, addresses, placeholders, store, self._arena, self._threads, self._products, run
        )  # fmt: skip
        return DebuggedProgram(made, stages, placeholders, store) if self._options.debug else made

    def stats(self) -> dict[str, int]:
        """Kernels that this session had compiled, and that it found compiled on disk."""
        return {"kernels_compiled": self._counters.compiled, "kernels_loaded": self._counters.loaded}

    def close(self) -> None:
        """Give back the BLAS thread setting."""
        if self._release is not None:
            self._release()


def compile_calls(calls: Sequence[Call], counters: cache.Counters) -> dict[int, int]:
    """Addresses of the kernels of ``calls`` and their epilogues, by identity; compiled or loaded where this process has
    not met them. Compiles the runner as well, where there is none.
    """
    parts = [part for call in calls for part in (call, *epilogue_of(call))]
    kernels = [kernel_of(part) for part in parts]
    new = {name: source for name, source in kernels if name not in cache.kernel_cache.kernels}
    missing = [name for name in new if not kernel_files.machine_code(kernel_files.path_of(name))]
    if missing:
        _compile_missing({name: new[name]() for name in missing}, counters)
    addresses = [cache.kernel_cache.get(name, source, counters).address for name, source in kernels]
    return {id(part): address for part, address in zip(parts, addresses, strict=True)}


def _compile_missing(sources: Mapping[str, str], counters: cache.Counters) -> None:
    """Have the kernels of ``sources``, by name, that are not on disk yet."""
    loaded = []
    with Team(sources, besides=0 if runner_is_compiled() else COST) as team:
        program_runner()  # while workers start
        for number, name in enumerate(team.turns(), 1):
            log.info("compiling kernel %d of %d: %s", number, len(sources), name)
            before = counters.loaded
            cache.kernel_cache.get(name, functools.partial(sources.__getitem__, name), counters)
            if counters.loaded > before:
                loaded.append(name)
    ours = len(team.claimed.intersection(loaded))
    counters.loaded -= ours
    counters.compiled += ours


def kernel_of(call: Call) -> tuple[str, Callable[[], str]]:
    """The name of a call's kernel, and what writes its source."""
    if isinstance(call, LoopCall):
        name = cache.kernel_name(call.kernel.label, call.kernel.text)
        return name, functools.partial(kernel_source, call.kernel, name)
    if isinstance(call, RoutineCall):
        label, text = ROUTINES[call.routine].source(call.writes[0].dtype)
    else:
        label, text = gemm_source(call.c.dtype) if isinstance(call, GemmCall) else copy_source()
    name = cache.kernel_name(label, text)
    return name, functools.partial(text.replace, "{name}", name)


class CpuProgram:
    """A compiled program of one session."""

    def __init__(
        self, graph: Graph, program: Program, addresses: Mapping[int, int], placeholders: Sequence[Tensor],
        store: ParameterStore, arena: Arena, thread_count: int, products: Splits, run: Any,
    ) -> None:  # fmt: skip
        self._graph = graph
        self.program = program
        self._placeholders = placeholders
        self._store = store
        self._arena = arena
        self._run = run
        slots = {b.id: FIRST + i for i, b in enumerate(b for b in program.buffers if _is_external(b))}
        self._binder = Binder(program, addresses, slots, thread_count, products)
        place = {t: i for i, t in enumerate(placeholders)}
        bases = np.zeros(FIRST + len(slots), np.int64)
        fed = [-1] * len(placeholders)
        self._state: list[tuple[int, Tensor]] = []
        self._outputs = [(slots[o.buffer.id], o.buffer.dtype) for o in program.outputs]
        self._constants: list[Array] = []
        for buffer in program.buffers:
            if buffer.kind == "feed":
                assert buffer.tensor is not None
                fed[place[buffer.tensor]] = slots[buffer.id]
            elif buffer.kind == "parameter":
                assert buffer.tensor is not None
                self._state.append((slots[buffer.id], buffer.tensor))
                bases[slots[buffer.id]] = address_of(store.array(buffer.tensor))
            elif buffer.kind == "constant":
                kept = _copied(program.constants[buffer.id])
                self._constants.append(kept)
                bases[slots[buffer.id]] = address_of(kept)
        self._advance = int(bool(graph.updates))
        self._frame = Frame(bases, store.counter, store.cancel, self._advance)
        self._feeds = [(base, t.dtype) for base, t in zip(fed, placeholders, strict=True)]
        self._requests: dict[tuple[tuple[Symbol, int], ...], Request] = {}
        self.again: Request | None = None

    @property
    def kernels(self) -> tuple[Call, ...]:
        """The calls of the program in order."""
        return self.program.calls

    def request(self, values: Mapping[Symbol, int]) -> Request:
        """The program at these extents; planned on first use."""
        key = tuple(values.items())
        found = self._requests.get(key)
        if found is None:
            found = self._requests[key] = self._request(self._frame, self._binder.bind(values), values)
            if len(self._requests) > BINDINGS:
                self._requests.pop(next(iter(self._requests)))
        return found

    def sizes(self, values: Mapping[Symbol, int]) -> dict[int, int]:
        """Bytes of every buffer at these extents, by its id."""
        return self._binder.sizes(values)

    def steps(self, values: Mapping[Symbol, int]) -> Steps:
        """The calls in the order in which they run at these extents; several small ones may be one step."""
        return self._binder.steps(values)

    def scratch(self, values: Mapping[Symbol, int]) -> int:
        """Bytes of the threads' scratch memory, if these extents need it."""
        return self._arena.scratch_size if self._binder.bind(values).scratch else 0

    @property
    def runs(self) -> int:
        """Whole runs since the program was made."""
        done: int = self._frame.words[DONE]
        return done

    def run(self, values: Mapping[Symbol, int], feeds: Sequence[Array], steps: int = 1) -> list[Any]:
        """Outputs of the last of ``steps`` runs, in order, in arrays of their own."""
        request = self.request(values)
        self.again = request
        found = request.run(tuple(feeds), steps)
        if found is None:
            self._explain_failure(values, feeds, {})
        return list(found)

    def profile(self, values: Mapping[Symbol, int], feeds: Sequence[Array], steps: int) -> Timings:
        """The times of ``steps`` runs, after one that is not timed, on copies of all that the session keeps."""
        clock, store, bound = clock_address(), self._store, self._binder.bind(values, waves=False)
        bases, counter = self._frame.bases.copy(), _copied(store.counter)
        state = {t: counter if store.array(t) is store.counter else _copied(store.array(t)) for _, t in self._state}
        for slot, tensor in self._state:
            bases[slot] = address_of(state[tensor])
        frame = Frame(bases, counter, store.cancel, self._advance)
        request = self._request(frame, bound, values)
        times = np.zeros((steps, len(self.kernels) + 1, TIME_WORDS), np.int64)
        fine = request.run(tuple(feeds)) is not None
        frame.clock(clock, times)
        if not fine or request.run(tuple(feeds), steps) is None:
            self._explain_failure(values, feeds, state)
        done: int = frame.words[DONE] - 1
        return Timings(times[:done] @ np.array([10**9, 1]), tuple(bound.table[:, WAYS].tolist()))

    def _request(self, frame: Frame, bound: Bound, values: Mapping[Symbol, int]) -> Request:
        shapes = [tuple(evaluate(e, values) for e in t.shape) for t in self._placeholders]
        feeds = [(*feed, shape) for feed, shape in zip(self._feeds, shapes, strict=True)]
        outputs = [(*output, shape) for output, shape in zip(self._outputs, bound.output_shapes, strict=True)]
        return Request(self._run, bound, frame, self._arena, feeds, outputs)

    def _explain_failure(
        self, values: Mapping[Symbol, int], feeds: Sequence[Array], state: Mapping[Tensor, Array]
    ) -> NoReturn:
        """Run the reference on the same feeds and ``state``: it stops at the node that failed, and says what it
        found.
        """
        graph = expand_gradients(self._graph)
        leaves = leaf_values(graph, self._placeholders, feeds, self._store)
        evaluate_graph(graph, values, {**leaves, **state})
        raise CompilerError("a kernel reported a failure that the reference does not see; please report this graph")


def _copied(array: Array) -> Array:
    kept = aligned_empty(array.shape, array.dtype)
    kept[...] = array
    return kept


def _is_external(buffer: Buffer) -> bool:
    return buffer.kind in ("feed", "parameter", "constant", "output")
