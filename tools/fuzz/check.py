"""A case on both devices: the same numbers up to what rounding can do, the same errors, and the same bits whatever
the number of threads.
"""

from __future__ import annotations

import contextlib
import re
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

import graphc as gc
from fuzz.case import Array, Case
from fuzz.noise import FEW, MORE_TRIALS, MOST_TRIALS, TRIALS, Difference, Model, Tally, Trials, differences
from fuzz.poison import poisoned
from fuzz.sharing import shared
from graphc.errors import CompilerError, GraphcError
from graphc.node import Tensor
from passes.gradient import expand_gradients
from passes.stabilise import stabilise
from runtime.store import STATE

TIMES = 3


@dataclass(frozen=True)
class Failure:
    """What went wrong. ``kind`` is one of "values", "threads", "repeat", "error", "parameters", "crash", "hang"."""

    kind: str
    message: str
    run: int = 0
    difference: Difference | None = None

    @property
    def signature(self) -> str:
        """The message without what varies between cases of one cause."""
        if self.kind in ("values", "threads", "repeat", "parameters"):
            return self.kind
        told = " ".join(self.message.splitlines()[:3])[:240]
        return f"{self.kind}: {re.sub(r'[?]?[0-9]+|/[^ ]+', '#', told)}"


@dataclass
class Outcome:
    """What a check did: elements compared and skipped, runs that both devices refused, kernels."""

    failure: Failure | None = None
    tally: Tally = field(default_factory=Tally)
    refused: int = 0
    runs: int = 0
    doubtful: int = 0
    kernels: int = 0


@dataclass(frozen=True)
class Answer:
    """Results of one run and the parameters after it; or the error that it raised."""

    results: Sequence[Array]
    parameters: Mapping[Tensor, Array]
    error: BaseException | None = None

    @property
    def refused(self) -> str | None:
        """The documented error that was raised, by class."""
        expected = isinstance(self.error, GraphcError) and not isinstance(self.error, CompilerError)
        return type(self.error).__name__ if expected else None


def check(case: Case) -> Outcome:
    """Every run of a case. Each device starts a run from the reference's parameters, so that errors do not add up."""
    outcome = Outcome()
    plain = stable = None
    with gc.Session("reference") as reference, gc.Session(threads=1) as one, gc.Session(threads=2) as two:
        for p in case.parameters:
            reference.set(p, case.values.get(p, reference.get(p)))
        for run in range(len(case.runs)):
            outcome.runs += 1
            before = {p: np.asarray(reference.get(p)) for p in case.parameters}
            state = kept(reference, case)
            for session in (one, two):
                for p, value in before.items():
                    session.set(p, value)
            expected = answer(reference, case, run)
            found = answer(one, case, run)
            outcome.failure = unlike(found, answer(two, case, run), run) or refusals(found, expected, before, run)
            if outcome.failure is not None:
                return outcome
            if expected.error is not None:
                outcome.refused += 1
                continue
            if plain is None or stable is None:
                plain = Model(expand_gradients(case.graph))
                stable = Model(expand_gradients(stabilise(case.graph)))
            outcome.failure = values(case, run, before, state, found, expected, (plain, stable), outcome)
            outcome.failure = outcome.failure or reported(case, run, one)
            if outcome.failure is None and run == len(case.runs) - 1:
                outcome.failure = repeated(case, run, before, (one, two))  # last, for it is ahead of the reference
            if outcome.failure is not None:
                return outcome
        outcome.kernels = sum(one.stats().get(k, 0) for k in ("kernels_compiled", "kernels_loaded"))
    return outcome


def kept(session: gc.Session, case: Case) -> dict[Tensor, Array]:
    """What a session keeps between runs and the case reads: parameters, keys of random numbers, the run counter."""
    with contextlib.suppress(Exception):  # the run itself raises it again
        session.compile(case.fetches)
        leaves = [n.outputs[0] for n in case.graph.nodes if n.op in STATE]
        return {t: np.array(session._store.array(t)) for t in leaves}
    return {}


def answer(session: gc.Session, case: Case, run: int, times: int = 1) -> Answer:
    """One run of one session; or several, in one call."""
    results: Sequence[Array] = []
    error = None
    feeds = case.runs[run]
    with np.errstate(all="ignore"), poisoned(), shared() if case.sharing else contextlib.nullcontext():
        try:
            if times == 1:
                results = session.run(case.fetches, feeds)
            else:
                results = session.compile(case.fetches, [*feeds]).repeat(times, *feeds.values())
        except Exception as raised:
            error = raised
    results = results[: len(case.outputs)]
    return Answer([np.asarray(r) for r in results], {p: np.asarray(session.get(p)) for p in case.parameters}, error)


def unlike(one: Answer, two: Answer, run: int) -> Failure | None:
    """What differs between one thread and two."""
    if type(one.error) is not type(two.error):
        return Failure("threads", f"one thread: {_told(one)}; two threads: {_told(two)}", run)
    pairs = [*zip(one.results, two.results, strict=True)]
    pairs += [(one.parameters[p], two.parameters[p]) for p in one.parameters]
    for place, (a, b) in enumerate(pairs):
        if a.dtype != b.dtype or a.shape != b.shape or a.tobytes() != b.tobytes():
            return Failure("threads", f"result {place} has other bits on two threads than on one", run)
    return None


def repeated(
    case: Case, run: int, before: Mapping[Tensor, Array], sessions: tuple[gc.Session, gc.Session]
) -> Failure | None:
    """What differs between runs one by one and as many in one call. The sessions have done the same until now."""
    if not case.updates:
        return None
    for session in sessions:
        for p, value in before.items():
            session.set(p, value)
    singly = [answer(sessions[0], case, run) for _ in range(TIMES)]
    found = unlike(singly[-1], answer(sessions[1], case, run, TIMES), run)
    if found is None or any(a.error is not None for a in singly):
        return None  # an update may have made an index that is out of range
    return Failure("repeat", f"{TIMES} runs, and repeat({TIMES}): {found.message}", run)


def reported(case: Case, run: int, session: gc.Session) -> Failure | None:
    """An error in what a step says about itself."""
    feeds = case.runs[run]
    try:
        step = session.compile(case.fetches, [*feeds])
        str(step.explain(*feeds.values()))
        str(step.memory_report(*feeds.values()))
    except Exception as error:
        return Failure("error", f"a report: {_told(Answer([], {}, error))}", run)
    return None


def refusals(found: Answer, expected: Answer, before: Mapping[Tensor, Array], run: int) -> Failure | None:
    """Errors that are not documented, or raised by one device alone; parameters that a failed run has changed."""
    for device, given in (("the reference", expected), ("the CPU", found)):
        if given.error is not None and given.refused is None:
            return Failure("error", f"{device}: {_told(given)}", run)
    if found.refused != expected.refused:
        return Failure("error", f"the CPU: {_told(found)}; the reference: {_told(expected)}", run)
    if found.refused is not None:
        changed = [p.name for p, value in before.items() if found.parameters[p].tobytes() != value.tobytes()]
        if changed:
            return Failure("parameters", f"a run that raised {found.refused} has changed {', '.join(changed)}", run)
    return None


def _told(given: Answer) -> str:
    if given.error is None:
        return "no error"
    last = traceback.extract_tb(given.error.__traceback__)[-1:]
    place = f" ({last[0].filename.rsplit('/', 1)[-1]}, {last[0].name})" if last else ""
    return f"{type(given.error).__name__}{place}: {given.error}"


def values(
    case: Case,
    run: int,
    before: Mapping[Tensor, Array],
    state: Mapping[Tensor, Array],
    found: Answer,
    expected: Answer,
    models: tuple[Model, Model],
    outcome: Outcome,
) -> Failure | None:
    """What differs from the reference by more than rounding explains."""
    written = [u.inputs[0] for u in case.updates]
    for p in case.parameters:
        unread = p not in set(written)
        if unread and found.parameters[p].tobytes() != before[p].tobytes():
            return Failure("parameters", f"{p.name} has changed, and nothing assigns it", run)
    known = {**state, **{t: native(case.runs[run][t]) for t in case.placeholders}}
    mine = [*found.results, *(found.parameters[p] for p in written)]
    theirs = [*expected.results, *(expected.parameters[p] for p in written)]
    seen: list[Difference] = []
    few = sum(a.size for a in (*mine, *known.values())) <= FEW
    for trials in (TRIALS, MORE_TRIALS, *([MOST_TRIALS] if few else [])):
        tally = outcome.tally if trials == TRIALS else Tally()
        seen = compare(case, run, known, mine, theirs, models, trials, tally)
        if not seen:
            outcome.doubtful += trials > TRIALS
            return None
    return Failure("values", "; ".join(map(str, seen[:3])), run, seen[0])


def native(array: Array) -> Array:
    return np.require(array, array.dtype.newbyteorder("="), ["C", "A"])


def compare(
    case: Case, run: int, known: Mapping[Tensor, Array], found: Sequence[Array], expected: Sequence[Array],
    models: tuple[Model, Model], trials: int, tally: Tally,
) -> list[Difference]:  # fmt: skip
    """Differences from the graph as written; and where that is not finite on the way, from its stable form as well."""
    plain, stable = models
    extents = case.extents(run)
    written = plain.measure(extents, known, seed=run, trials=trials)
    seen = differences(found, Trials(list(expected), written.exact, written.special, written.moved), tally)
    if seen and written.special and len(stable.graph.nodes) != len(plain.graph.nodes):
        wrong = {d.place for d in differences(found, stable.measure(extents, known, seed=run, trials=trials))}
        seen = [d for d in seen if d.place in wrong]
    return seen
