"""Sessions: where graphs meet numbers."""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import numpy as np

from graphc.dims import Symbol, Unifier
from graphc.errors import DeviceError, FeedError, SessionError
from graphc.node import Node, Tensor
from graphc.state import PARAMETER, Update
from passes import program as lowered
from passes.graph import Graph
from passes.waves import Steps
from runtime.feeds import FeedPlan
from runtime.fetches import cache_key, flatten
from runtime.numerics import CheckedProgram
from runtime.profile import Timings
from runtime.step import Step
from runtime.store import STATE, ParameterStore, refuse_unnamed

if TYPE_CHECKING:
    from runtime.cpu.frame import Request

Array = np.ndarray[Any, Any]
DEVICES = ("cpu", "reference", "auto")
STEPS = 128  # compiled steps that a session keeps though nobody holds them


class Program(Protocol):
    """What a backend makes of a graph."""

    @property
    def kernels(self) -> Sequence[Any]: ...

    @property
    def program(self) -> lowered.Program | None: ...

    def sizes(self, values: Mapping[Symbol, int]) -> Mapping[int, int]: ...

    def steps(self, values: Mapping[Symbol, int]) -> Steps: ...

    def scratch(self, values: Mapping[Symbol, int]) -> int: ...

    @property
    def runs(self) -> int: ...

    def run(self, values: Mapping[Symbol, int], feeds: Sequence[Array], steps: int = 1) -> list[Any]: ...

    @property
    def again(self) -> Request | None:
        """The last run, for other feeds of the same shapes. None where every run goes through ``run``."""

    def profile(self, values: Mapping[Symbol, int], feeds: Sequence[Array], steps: int) -> Timings: ...


_NO_FEEDS: Mapping[Any, Any] = {}
Backend = Callable[[Graph, Unifier, Sequence[Tensor], ParameterStore], Program]


def _backend(device: str, threads: int | None, autotune: bool) -> Backend:
    if device == "reference":
        from runtime.reference import ReferenceProgram

        return ReferenceProgram
    if device in ("cpu", "auto"):
        from runtime.cpu.backend import CpuBackend

        return CpuBackend(threads, autotune)
    if device == "cuda":
        raise DeviceError("device 'cuda' is not in this version; use device='cpu', or 'auto' to take the best there is")
    raise DeviceError(f"unknown device {device!r}; use one of {', '.join(DEVICES)}")


class Session:
    """Holds parameter values and compiled programs, and runs fetches.

    ``device`` is "cpu" (Numba kernels), "reference" (NumPy, op by op) or "auto" (the fastest present). ``seed``
    decides first values and random numbers. ``threads`` limits the threads of a run; None takes all cores that the
    process may use. Runs of one session take turns; different sessions run side by side. Use it as a context manager,
    or call ``close()``.

    A session keeps the ``STEPS`` steps that were used last, and finds every other that someone holds; a step keeps
    its plans for 128 combinations of extents. What is let go is made again when it is needed.

    ``check_numerics=True`` finds where a NaN or an infinity comes from: every run is evaluated by NumPy first, op by
    op, and raises ``NumericsError`` at the first op that makes one of finite operands, with the user's line, before
    anything has changed. It is slow. Infinities written as constants (masks) are taken as meant.

    ``autotune=True`` measures how each matrix product is best split, and by what (graphc's own kernel, or a BLAS), the
    first time that its extents are met: at most some 50 ms for a product, remembered in the kernel cache's folder.
    Libraries round differently, so results may differ in the last bits from those of another machine or number of
    threads; without it they depend on extents alone.
    """

    def __init__(
        self, device: str = "cpu", seed: int = 0, threads: int | None = None, *, check_numerics: bool = False,
        autotune: bool = False,
    ) -> None:  # fmt: skip
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**63:
            raise SessionError(f"seed must be an int from 0 to 2**63 - 1, got {seed!r}")
        if threads is not None and (
            isinstance(threads, bool) or not isinstance(threads, (int, np.integer)) or threads < 1
        ):
            raise SessionError(f"threads must be an int of at least 1, or None for all cores, got {threads!r}")
        self.device = device
        self._backend = _backend(device, None if threads is None else int(threads), bool(autotune))
        self._check_numerics = bool(check_numerics)
        self._store = ParameterStore(int(seed))
        self._lock = threading.RLock()
        self._steps: weakref.WeakValueDictionary[Any, Step] = weakref.WeakValueDictionary()
        self._recent: OrderedDict[Any, Step] = OrderedDict()
        self._newest: tuple[Any, Any] = (None, None)  # key and step
        self._compiled = 0
        self._runs = 0
        self._running = False
        self._closed = False

    # Running.

    def run(self, fetches: Any, feeds: Mapping[Any, Any] | None = None) -> Any:
        """Values of ``fetches`` (any nesting of tensors and updates; updates give None) for the given ``feeds``.

        ``feeds`` maps placeholders, or their names, to arrays. Fetched arrays are the caller's own; a 0-d result is a
        NumPy scalar. Updates take effect together when everything has been computed; a run that raises changes
        nothing. Raises ``FetchError``, ``FeedError``, ``SessionError``, ``IndexRangeError``, ``NumericsError``.
        """
        key = cache_key(fetches)
        newest, step = self._newest
        if key != newest:
            with self._lock:
                step = self._step(fetches, key)
        return step.run_feeds(_NO_FEEDS if feeds is None else feeds)

    def compile(self, fetches: Any, feeds: Sequence[Tensor | str] | Tensor | str | None = None) -> Step:
        """The fetches compiled: ``step(*arrays)`` runs them with arrays for ``feeds``, in that order.

        ``feeds=None`` takes every placeholder that the fetches need, in order of creation.
        """
        with self._lock:
            step = self._step(fetches, cache_key(fetches))
            return step if feeds is None else step.ordered(feeds)

    def _step(self, fetches: Any, key: Any) -> Step:
        self._check_open()
        step = self._steps.get(key)  # found by identities, all of which a step holds
        if step is None:
            flat = flatten(fetches)
            graph = flat.graph
            unifier = unify_constraints(graph.nodes)
            plan = FeedPlan(graph.nodes)
            self._store.meet(n.outputs[0] for n in graph.nodes if n.op in STATE)
            program = self._backend(graph, unifier, plan.placeholders, self._store)
            if self._check_numerics:
                program = CheckedProgram(program, graph, plan.placeholders, self._store)
            step = Step(self, flat, plan, program, self._store)
            self._steps[key] = step
            self._compiled += 1
        self._recent[key], self._newest = step, (key, step)
        self._recent.move_to_end(key)
        if len(self._recent) > STEPS:
            self._recent.popitem(last=False)
        return step

    def _refuse_run(self) -> NoReturn:
        self._check_open()
        raise SessionError(
            "a run of this session was asked for inside another of its runs, by a signal handler or a finaliser; only "
            "get and set can be used there"
        )

    def _check_open(self) -> None:
        if self._closed:
            raise SessionError("this session is closed; open a new one with graphc.Session()")

    # State.

    def get(self, parameter: Tensor | str) -> Any:
        """A copy of a parameter's value (a NumPy scalar when it is 0-d)."""
        with self._lock:
            self._check_open()
            return np.array(self._store.array(self._store.find(parameter, "get")))[()]

    def set(self, parameter: Tensor | str, value: Any) -> None:
        """Replace a parameter's value. ``FeedError`` when shape or kind does not fit."""
        with self._lock:
            self._check_open()
            self._store.set(parameter, value)

    def save(self, path: str | os.PathLike[str], params: Any = None) -> None:
        """Write parameters to a safetensors file, atomically.

        ``params``: None for everything the session holds, a list of parameters, a Module (saved under the names of
        its attributes), or fetches (every parameter they reach).
        """
        with self._lock:
            self._check_open()
            self._store.save(path, None if params is None else named_parameters(params))

    def load(self, path: str | os.PathLike[str], params: Any = None, *, strict: bool = True) -> None:
        """Restore parameters by name from a safetensors file.

        Shapes and dtypes are checked before anything changes (``CheckpointError``). Entries for parameters that the
        session has not met wait for them. ``strict=False`` lets parameters that the file lacks keep their values.
        """
        with self._lock:
            self._check_open()
            self._store.load(path, None if params is None else named_parameters(params), strict=strict)

    def stats(self) -> dict[str, int]:
        """Counters since the session was opened: runs, compiled steps, kernels compiled and loaded from the cache."""
        found: dict[str, int] = getattr(self._backend, "stats", dict)()
        return {"steps": self._compiled, "runs": self._runs, **found}

    # Life.

    def close(self) -> None:
        """Free memory and programs; further use raises ``SessionError``. Closing twice is fine.

        A run in another thread is waited for, a ``repeat`` ends after its present run.
        """
        self._store.cancel[...] = 1
        with self._lock:
            self._closed = True
            self._steps.clear()
            self._recent.clear()
            self._newest = (None, None)
            release = getattr(self._backend, "close", None)
            if release is not None:
                release()

    def __enter__(self) -> Session:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self._compiled} steps compiled"
        return f"<graphc.Session on {self.device}, {state}>"


def unify_constraints(nodes: Sequence[Node]) -> Unifier:
    """All that must hold between extents, in one union-find; ``FeedError`` when it is contradictory whatever is fed."""
    unifier = Unifier()
    for node in nodes:
        for a, b in node.constraints:
            if b is not None and not unifier.unify(a, b):
                operands = "".join(f"\n    {t.describe()}" for t in node.inputs)
                raise FeedError(
                    f"{node.op.name} at {node.where} needs {a} = {b}, and other lines make them "
                    f"{unifier.canonical(a)} and {unifier.canonical(b)}\n  operands:{operands}"
                )
    return unifier


def named_parameters(params: Any) -> dict[str, Tensor]:
    """Parameters under the names they are saved by: a Module's attribute paths, or the parameters' own names."""
    if hasattr(params, "named_parameters"):
        return dict(params.named_parameters())
    found: dict[str, Tensor] = {}
    items = params if isinstance(params, (list, tuple)) else [params]
    for item in items:
        roots = item.assigns if isinstance(item, Update) else None
        if roots is None and isinstance(item, Tensor) and item.node.op is PARAMETER:
            reached = [item]
        else:
            graph = flatten(item).graph
            reached = [n.outputs[0] for n in graph.nodes if n.op is PARAMETER]
        refuse_unnamed(reached)
        for parameter in reached:
            other = found.setdefault(parameter.name, parameter)
            if other is not parameter:
                raise SessionError(
                    f"two parameters are named {parameter.name!r}:\n    {other.describe()}\n    {parameter.describe()}"
                )
    return found
