"""A compiled step: fetches resolved once, run many times."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from graphc.dims import Symbol
from graphc.errors import DeviceError, FeedError, SessionError
from graphc.node import Tensor
from passes.explain import Explanation, explain
from passes.memory_report import MemoryReport, memory_report
from runtime.batches import grouped
from runtime.extents import has_extents, named_extents, unknown_extents
from runtime.feeds import Extras, FeedPlan, convert
from runtime.fetches import MISFIT, Fetches
from runtime.profile import Profile, profile_of
from runtime.store import ParameterStore

if TYPE_CHECKING:
    from runtime.cpu.frame import Request
    from runtime.session import Program, Session


_empty = np.empty
Quick = Callable[[tuple[Any, ...]], Any]


class Step:
    """Fetches compiled for one session. Call it with one array per placeholder, in the order of ``feeds``."""

    def __init__(
        self,
        session: Session,
        fetches: Fetches,
        plan: FeedPlan,
        program: Program,
        store: ParameterStore,
        feeds: Sequence[Tensor] | None = None,
        source: Step | None = None,
    ) -> None:
        self._session = session
        self._fetches = fetches
        self._plan = plan
        self._program = program
        self._store = store
        self._last: dict[Symbol, int] | None = None  # extents of the last run
        self._source = source  # the session finds it again as long as someone holds it
        self.feeds: tuple[Tensor, ...] = tuple(
            feeds if feeds is not None else sorted(plan.placeholders, key=lambda t: t.node.serial)
        )
        place = {t: i for i, t in enumerate(self.feeds)}
        self._order = tuple(place[t] for t in plan.placeholders if t in place)
        self._unread = tuple(sorted(set(range(len(self.feeds))) - set(self._order)))
        in_order = not self._unread and self._order == tuple(range(len(self.feeds)))
        self._reorder = None if in_order else _reordering(self._order)
        self._placeholders = plan.placeholders
        self._rebuild = fetches.rebuild
        self._request: Request | None = None  # of the last run, for others of its shapes
        self._quick: Quick = _misfit  # takes arrays in the order of the plan's placeholders
        self._called: Quick = _misfit  # and in that of feeds
        self._counted = [0]  # in a list, which a quick run can hold without holding the step

    @property
    def kernels(self) -> Sequence[Any]:
        """The kernels of the compiled program, in the order in which they run."""
        return self._program.kernels

    @property
    def runs(self) -> int:
        """Whole runs of this step."""
        return self._counted[0]

    @property
    def program(self) -> Program:
        """The backend's program."""
        return self._program

    def ordered(self, feeds: Sequence[Tensor | str] | Tensor | str) -> Step:
        """The same program, called with arrays for ``feeds`` in that order."""
        targets: dict[Tensor, None] = {}
        if isinstance(feeds, Mapping):
            raise FeedError("compile: feeds= lists placeholders, feeds=[x, y]; arrays go to step(x_array, y_array)")
        for key in [feeds] if isinstance(feeds, (str, Tensor, np.ndarray)) else feeds:
            target = self._plan.target(key, "compile: feeds= lists placeholders or names")
            if target in targets:
                raise FeedError(f"compile: placeholder {target.name!r} appears twice in feeds")
            targets[target] = None
        missing = [t for t in self._plan.placeholders if t not in targets]
        if missing:
            lines = "".join(f"\n    {t.describe()}" for t in missing)
            raise FeedError(f"compile: the fetches need placeholders that feeds= does not list:{lines}")
        return Step(self._session, self._fetches, self._plan, self._program, self._store, tuple(targets), self)

    def __call__(self, *arrays: Any) -> Any:
        """Run with one array per placeholder of ``feeds``. As ``Session.run``, but nothing is looked up."""
        found = self._called(arrays)
        return self._run(*self._converted(arrays)) if found is MISFIT else found

    def _are_like(self, arrays: Sequence[Any]) -> bool:
        """Whether there is one for each feed, and all are read."""
        return len(arrays) == len(self._order) == len(self.feeds)

    def repeat(self, n: int, *arrays: Any) -> Any:
        """Run ``n`` times with the same arrays, without Python between the runs; what the last of them fetches.

        The updates of each run take effect before the next. A run that raises leaves those before it done; so do
        Ctrl-C, which is seen within a tenth of a second or one run, and ``Session.close`` in another thread
        (``SessionError``). Other runs of the session wait until all ``n`` are done.
        """
        steps = _count(n, "repeat")
        return self._run(*self._converted(arrays), steps)

    def map(self, batches: Iterable[Any]) -> list[Any]:
        """Run once with each of ``batches``: the arrays of a call in a tuple, or the array alone where a call takes
        one. What each run fetches, in order.

        Runs of arrays that fit as they are, and have the shapes of the ones before, follow one another without Python
        between them. Batches are drawn some tens of milliseconds of running ahead, so an iterator must give new arrays,
        and not fill those that it gave before. The updates of each run take effect before the next; a run that raises,
        an iterator that does, and Ctrl-C leave those before it done.
        """
        results: list[Any] = []
        for group in grouped(batches, self._tuple):
            while group:
                done = self._each(group)
                results += done
                del group[: len(done)]
                if group:
                    results.append(self(*group.pop(0)))
        return results

    def _tuple(self, batch: Any) -> tuple[Any, ...]:
        if isinstance(batch, (tuple, list)):
            return tuple(batch)
        if len(self.feeds) != 1:
            names = ", ".join(t.name for t in self.feeds)
            raise FeedError(f"map: each batch is a tuple of {len(self.feeds)} arrays ({names}), got {_shown(batch)}")
        return (batch,)

    def _each(self, batches: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Results of the first of ``batches``, as many as fit the last run as they are; nothing is converted."""
        session, request = self._session, self._request
        if request is None:
            return []
        fitting = tuple(itertools.takewhile(self._are_like, batches))
        if self._reorder is not None:
            fitting = tuple(map(self._reorder, fitting))
        with session._lock:
            if session._closed or session._running:
                return []
            session._running = True
            try:
                before = self._program.runs
                results = request.run_each(fitting)
            finally:
                session._running = False
                done = self._program.runs - before
                self._counted[0] += done
                session._runs += done
        return [self._rebuild(each) for each in results]

    def _converted(self, arrays: Sequence[Any]) -> tuple[list[Any], Extras]:
        if any(isinstance(a, dict) for a in arrays):
            raise FeedError("a step is called with arrays, in the order of its feeds; feeds by name go to session.run")
        if len(arrays) != len(self.feeds):
            names = ", ".join(t.name for t in self.feeds)
            raise FeedError(f"this step takes {len(self.feeds)} arrays ({names}), got {len(arrays)}")
        converted = [convert(a, t, f"placeholder {t.name!r}") for a, t in zip(arrays, self.feeds, strict=True)]
        extras = self._plan.extras({self.feeds[i]: converted[i] for i in self._unread}) if self._unread else ()
        return [converted[i] for i in self._order], extras

    def run_feeds(self, feeds: Mapping[Any, Any]) -> Any:
        """Run with arrays looked up by placeholder or name."""
        if type(feeds) is dict and len(feeds) == len(self._placeholders):
            found = self._quick(tuple(map(feeds.get, self._placeholders)))
            if found is not MISFIT:
                return found
        return self._run(*self._plan.resolve(feeds))

    def _reordered(self, quick: Quick, reorder: Callable[[Sequence[Any]], tuple[Any, ...]]) -> Quick:
        """``quick`` for arrays in the order of ``feeds``."""
        fed = len(self.feeds)
        if self._unread:
            return _misfit  # what is not read is looked at all the same
        return lambda arrays: quick(reorder(arrays)) if len(arrays) == fed else MISFIT

    def _quick_runs(self, request: Request) -> Quick:
        """What runs the step on other arrays, in the order of the plan's placeholders, that need no conversion and have
        the shapes of the last run. ``MISFIT``, and nothing has changed, where ``_run`` must see to it.

        Everything is looked up once, and written out: a call takes less than a microsecond beside the kernels, of which
        each function of Python's would be a twentieth, and ``with`` a tenth. Python calls the handlers of signals
        before the native call or after it, where another run does no harm; so ``_running`` is only looked at. It calls
        them after any call: so nothing is called between an exception and the release of the lock.
        """
        session, counted, rebuild = self._session, self._counted, self._rebuild
        acquire, release = session._lock.acquire, session._lock.release
        run, address, count, finished = request.native, request.address, request.fed, request.FINISHED
        make, finish, plain, single = request.results, request.fetched, request.plain, request.single
        control, done = request.control, request.DONE

        def quick(arrays: tuple[Any, ...]) -> Any:
            found, before = MISFIT, None
            try:
                acquire()  # a handler that raises is called right after it, or instead
                before = control[done]
                if not (session._closed or session._running) and len(arrays) == count:
                    outputs = (_empty(*single),) if single is not None else make()
                    if run(address, arrays, outputs) == finished:
                        found = rebuild(outputs if plain else finish(outputs))
                        counted[0] += 1
                        session._runs += 1
            except BaseException:
                if before is not None:  # a run that was interrupted at its end is whole
                    late = control[done] - before
                    counted[0] += late
                    session._runs += late
                try:  # noqa: SIM105 - suppress is a function of Python's
                    release()
                except RuntimeError:  # not acquired
                    pass
                raise
            release()
            return found

        return quick

    def _run(self, arrays: Sequence[Any], extras: Extras = (), steps: int = 1) -> Any:
        session, program = self._session, self._program
        with session._lock:
            if session._closed or session._running:
                session._refuse_run()
            before = program.runs
            session._running = True
            try:
                values = self._last = self._plan.bind(tuple([a.shape for a in arrays]), extras)
                results = program.run(values, arrays, steps)
                if self._request is not program.again and not self._plan.takes_extents:
                    self._request = program.again
                    self._quick = _misfit if program.again is None else self._quick_runs(program.again)
                    self._called = self._quick if self._reorder is None else self._reordered(self._quick, self._reorder)
            except BaseException as error:
                if steps > 1:
                    error.add_note(f"repeat: {program.runs - before} of {steps} runs were done, and their updates hold")
                raise
            finally:
                session._running = False
                done = program.runs - before
                self._counted[0] += done
                session._runs += done
            if done < steps:
                raise SessionError(f"the session was closed after {done} of {steps} repeated runs")
        return self._rebuild(results)

    # What was made of it.

    def explain(self, *arrays: Any, **extents: int) -> Explanation:
        """What the step was compiled to, kernel by kernel: the user's lines, ops, grid, bytes, floating-point
        operations, and why it was not fused with those that read it. Print it, or look at its fields.

        Amounts are formulas where extents are symbolic; numbers for ``explain(batch=64)``, or for arrays as in a run.
        """
        program = self._program.program
        if program is None:
            return Explanation({}, (), "no kernels: device 'reference' evaluates the graph op by op with NumPy")
        values = self._extents("explain", arrays, extents)
        return explain(program, values or {}, {} if values is None else self._program.sizes(values))

    def memory_report(self, *arrays: Any, **extents: int) -> MemoryReport:
        """How many bytes a run takes and which lines hold them, known before it: print it, or look at its fields.

        Extents that are symbolic are named, ``memory_report(batch=64)``, or taken from arrays as in a run, or those of
        the last run. Steps of one session share one arena, as large as the largest that has run needs. Raises
        ``FeedError`` when extents are missing, ``DeviceError`` on "reference", which plans nothing.
        """
        program = self._program.program
        if program is None:
            raise DeviceError("memory_report: device 'reference' plans no memory: NumPy allocates as it goes")
        values = self._extents("memory_report", arrays, extents)
        values = self._last if values is None else values
        if values is None:
            raise unknown_extents(self._plan, self.feeds, "memory_report")
        planned = self._program
        return memory_report(program, values, planned.sizes(values), planned.steps(values), planned.scratch(values))

    def profile(self, n: int = 10, *arrays: Any, trace: str | os.PathLike[str] | None = None) -> Profile:
        """The time of each kernel in ``n`` runs with these arrays, after one that is not timed: print it, look at its
        fields, or give ``trace`` a file name for a Chrome trace.

        The runs work on copies of the parameters and the run counter: nothing changes, and they are not counted.
        Raises ``DeviceError`` on "reference", which has no kernels.
        """
        steps = _count(n, "profile")
        program = self._program.program
        if program is None:
            raise DeviceError("profile: device 'reference' has no kernels to time; use device='cpu'")
        converted, extras = self._converted(arrays)
        session = self._session
        with session._lock:
            if session._closed or session._running:
                session._refuse_run()
            session._running = True
            try:
                values = self._plan.bind(tuple([a.shape for a in converted]), extras)
                timings = self._program.profile(values, converted, steps)
            finally:
                session._running = False
            if len(timings.marks) < steps:
                raise SessionError(f"the session was closed after {len(timings.marks)} of {steps} runs of a profile")
        found = profile_of(explain(program, values, self._program.sizes(values)), timings)
        if trace is not None:
            found.save_trace(trace)
        return found

    def _extents(self, what: str, arrays: Sequence[Any], named: Mapping[str, int]) -> dict[Symbol, int] | None:
        """Values of symbolic extents; None where nothing says what they are."""
        if arrays and named:
            raise FeedError(f"{what}: give arrays or extents by name, not both")
        if arrays:
            converted, extras = self._converted(arrays)
            return self._plan.bind(tuple([a.shape for a in converted]), extras)
        if named or not has_extents(self._plan, self.feeds):
            return named_extents(self._plan, self.feeds, named, what)
        return None

    def __repr__(self) -> str:
        return f"<graphc step of {len(self._fetches.graph.outputs)} fetches, {len(self.kernels)} kernels>"


def _count(n: Any, what: str) -> int:
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise SessionError(f"{what}: the first argument is the number of runs, an int of at least 1; got {_shown(n)}")
    return int(n)


def _reordering(order: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    return lambda arrays: tuple([arrays[i] for i in order])


def _misfit(arrays: tuple[Any, ...]) -> Any:
    return MISFIT


def _shown(value: Any) -> str:
    return f"an array of shape {np.shape(value)}" if np.ndim(value) else repr(value)
