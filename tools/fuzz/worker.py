"""A process that draws and checks one program after another, and says on its standard output what it does: a line of
JSON before each program, so that its number survives a crash, and one after.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from fuzz.arguments import BuildError
from fuzz.case import Case
from fuzz.catalogue import Entry, entries
from fuzz.check import Failure, Outcome, check
from fuzz.drawing import draw
from fuzz.script import call_script, script
from fuzz.shrink import Shrinker

KNOWN_LIMIT = 2  # how often an error of one kind is made small; after that it is counted
MANY = 20  # failures, after which less time is spent on each
SHRINK_SECONDS = 90.0


class Worker:
    """Checks programs ``first``, ``first + step``, ... of ``seed`` until ``count`` are done or time is up."""

    def __init__(self, seed: int, tell: Callable[[dict[str, Any]], None], catalogue: Sequence[Entry]) -> None:
        self.seed = seed
        self.tell = tell
        self.catalogue = catalogue
        self.seen: dict[str, int] = {}

    def run(self, numbers: Sequence[int], seconds: float) -> None:
        end = time.monotonic() + seconds
        for number in numbers:
            if time.monotonic() > end:
                return
            self.program(number)

    def program(self, number: int) -> None:
        """One program, from its number to what became of it."""
        self.tell({"event": "start", "number": number})
        try:
            case, names = draw(self.seed, number, self.catalogue)
        except BuildError as error:
            failure = Failure("writing", f"{error.name}: {error.__cause__!r}")
            self.fail(number, failure, failure.signature, call_script(error, failure))
            return
        outcome = check(case)
        if outcome.failure is not None:
            self.small(number, case, outcome.failure)
        self.tell({"event": "done", "number": number, "ops": names, **_counts(outcome)})

    def small(self, number: int, case: Case, failure: Failure) -> None:
        """Make a failing case small, and report it."""
        times = self.seen[failure.signature] = self.seen.get(failure.signature, 0) + 1
        if failure.kind != "values" and times > KNOWN_LIMIT:
            self.fail(number, failure, failure.signature, "")
            return
        self.tell({"event": "shrinking", "number": number})
        seconds = SHRINK_SECONDS if times <= MANY else SHRINK_SECONDS / 6
        least, how = Shrinker(case, failure, lambda c: check(c).failure, seconds).shrink()
        self.fail(number, failure, signature(least, how), script(least, how, f"{how.kind}: {how.message}"))

    def fail(self, number: int, failure: Failure, cause: str, text: str) -> None:
        """Report a failure; failures of one cause are counted together."""
        self.tell(
            {"event": "failure", "number": number, "kind": failure.kind, "message": failure.message, "script": text,
             "signature": cause}
        )  # fmt: skip


def signature(case: Case, failure: Failure) -> str:
    """What failures of one cause have in common: how they fail, and the ops of the smallest program."""
    return f"{failure.signature}: {' '.join(sorted({n.op.name for n in case.graph.nodes if n.inputs}))}"


def _counts(outcome: Outcome) -> dict[str, int]:
    return {
        "runs": outcome.runs, "refused": outcome.refused, "doubtful": outcome.doubtful, "kernels": outcome.kernels,
        "compared": outcome.tally.compared, "skipped": outcome.tally.skipped,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, kind in (("seed", int), ("first", int), ("step", int), ("count", int), ("seconds", float)):
        parser.add_argument(f"--{name}", type=kind, required=True)
    parser.add_argument("--only", nargs="*", default=[])
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    out = sys.stdout
    sys.stdout = sys.stderr  # whatever a kernel or a library prints is no report

    def tell(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=out, flush=True)

    worker = Worker(given.seed, tell, entries(given.only))
    worker.run(range(given.first, given.first + given.count * given.step, given.step), given.seconds)
    tell({"event": "end"})


if __name__ == "__main__":
    main()
