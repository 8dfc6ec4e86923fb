"""Random programs on the CPU and in the reference: the same numbers, up to what rounding can do to each of them, and
the same bits on one thread and two. ``make fuzz`` goes on with others for as long as one likes.
"""

from __future__ import annotations

import pytest
from fuzz.catalogue import entries
from fuzz.check import check
from fuzz.drawing import draw
from fuzz.noise import Tally
from fuzz.script import script

SEED = 3
PROGRAMS = 50
CATALOGUE = entries()
TALLY = Tally()


@pytest.mark.parametrize("number", range(PROGRAMS))
def test_random_program(number: int) -> None:
    case, _ = draw(SEED, number, CATALOGUE)
    outcome = check(case)
    TALLY.compared += outcome.tally.compared
    TALLY.skipped += outcome.tally.skipped
    assert outcome.failure is None, (
        f"{outcome.failure.kind}: {outcome.failure.message}\n"
        f'make fuzz ARGS="--seed {SEED} --first {number} --programs 1" makes it small\n'
        f"{script(case, outcome.failure)}"
    )


def test_most_elements_were_compared() -> None:
    """Not everything may be excused as ill-conditioned."""
    if not TALLY.compared:
        pytest.skip("the random programs did not run in this process")
    assert TALLY.skipped < 0.25 * (TALLY.compared + TALLY.skipped), TALLY
