"""The fuzzer: it reaches the registry, draws the same programs again, finds what is broken on purpose, makes it small
and prints it; and it tells rounding from mistakes.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz.__main__ import reachable, run_script
from fuzz.case import Case, holds
from fuzz.check import Failure, check
from fuzz.drawing import draw, largest
from fuzz.noise import Model, Tally, differences
from fuzz.script import script
from fuzz.sharing import shared
from fuzz.shrink import Shrinker

import graphc as gc
from graphc.node import Tensor
from graphc.opdef import OPS, OpDef
from passes.gradient import expand_gradients
from passes.graph import Graph

TOOLS = Path(__file__).parents[2] / "tools"


# What is drawn.


def test_nine_ops_in_ten_are_drawn() -> None:
    found = Counter(name for number in range(400) for name in draw(0, number)[1])
    wanted = reachable()
    missing = [name for name in wanted if not found[name]]
    assert len(missing) <= 0.1 * len(wanted), missing


def test_programs_are_small_and_not_trivial() -> None:
    sizes = [len(draw(1, number)[1]) for number in range(60)]
    assert min(sizes) >= 1
    assert max(sizes) > 30
    runs = [len(draw(1, number)[0].runs) for number in range(60)]
    assert set(runs) >= {1, 2}


def described(number: int) -> str:
    case, _ = draw(5, number)
    return script(case)


def test_a_seed_gives_the_same_programs_in_another_process() -> None:
    code = "from test_fuzz import described; import sys; [sys.stdout.write(described(i)) for i in range(8)]"
    paths = os.pathsep.join([str(Path(__file__).parent), str(TOOLS), str(TOOLS.parent)])
    digests = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": hash_seed, "PYTHONWARNINGS": "ignore"}
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=True)
        digests.add(hashlib.sha256(ended.stdout).hexdigest())
    assert len(digests) == 1


def test_every_program_prints_as_a_script_that_runs(kernel_cache_folder: str) -> None:
    for number in range(4):
        case, _ = draw(2, number)
        ended = run_script(script(case), 120)
        assert ended is None or check(case).refused, f"{ended}\n{script(case)}"


def test_layers_with_their_training_are_drawn_and_share_their_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fuzz.drawing.LAYERED", 100)
    cases = [draw(4, number) for number in range(20)]
    assert sum(names.count("matmul") > 1 and bool(case.updates) for case, names in cases) > 10
    (shared, *_), (usual, *_) = ([c for c, _ in cases if c.sharing is sharing] for sharing in (True, False))
    assert "grid.PARALLEL_WORK" in script(shared)
    assert "grid.PARALLEL_WORK" not in script(usual)


# What is found.


@pytest.fixture
def break_op() -> Iterator[Callable[[OpDef, Any], None]]:
    """Gives an op another ``emit``, so that the CPU computes something else than the reference."""
    broken: list[tuple[OpDef, Any]] = []

    def put(op: OpDef, emit: Any) -> None:
        broken.append((op, op.emit))
        object.__setattr__(op, "emit", emit)

    yield put
    for op, emit in broken:
        object.__setattr__(op, "emit", emit)


def found(seed: int, wanted: str) -> tuple[Case, Failure]:
    """The first program of a seed with the op in it that fails."""
    for number in range(200):
        case, names = draw(seed, number)
        if wanted in names:
            failure = check(case).failure
            if failure is not None:
                return case, failure
    raise AssertionError("nothing was found")


def test_a_wrong_kernel_is_found_and_made_small(break_op: Any) -> None:
    break_op(OPS["tanh"], lambda b, a, x: b.binary("mul", b.unary("tanh", x), b.literal(x, 1.0009765625)))
    case, failure = found(0, "tanh")
    assert failure.kind == "values"
    least, how = Shrinker(case, failure, lambda c: check(c).failure, 60).shrink()
    computed = [n.op.name for n in least.graph.nodes if n.inputs]
    assert "tanh" in computed
    assert len(computed) <= 3, computed
    with shared(), pytest.raises(AssertionError):  # which takes back what the script sets
        exec(compile(script(least, how), "<found>", "exec"), {})


def test_a_rounding_too_many_is_found(break_op: Any) -> None:
    """Correctly rounded arithmetic must have the reference's bits: here a product goes through another order."""
    break_op(
        OPS["subtract"],
        lambda b, a, x, y: b.binary("sub", b.binary("add", x, b.literal(x, 1)), b.add(y, b.literal(y, 1))),
    )
    _, failure = found(0, "subtract")
    assert failure.kind == "values"


def test_an_undocumented_error_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise ZeroDivisionError("broken on purpose")

    monkeypatch.setattr("runtime.cpu.backend.lower", fail)
    case, _ = draw(0, 0)
    failure = check(case).failure
    assert failure is not None
    assert failure.kind == "error"
    assert "ZeroDivisionError" in failure.message


def test_a_crash_and_a_hang_end_as_failures() -> None:
    crash = run_script("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", 60)
    hang = run_script("while True: pass", 1)
    assert (crash and crash.kind, hang and hang.kind) == ("crash", "hang")
    assert run_script("print('well')", 60) is None


def test_extents_of_what_is_not_computed_are_not_asked_for() -> None:
    """Only the rule of a derivative that nobody asks for reads ``x``, of an extent that is nobody else's."""
    x, other = gc.placeholder((gc.dim("m") + 1, 5), name="x"), gc.placeholder((2,), name="other")
    pair = gc.custom_gradient(lambda a, b: (a * 2, gc.sum(b)), lambda g, y, a, b: (g[0] * 2, None))
    case = Case((pair(x, other)[1],), (), ({other: np.ones(2, np.float32)},))
    assert holds(case, 0)
    assert largest(case) == 2


def test_the_command_line_reports() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TOOLS), str(TOOLS.parent)])}
    command = [sys.executable, "-m", "fuzz", "--seed", "3", "--programs", "3", "--minutes", "2"]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "seed 3: 3 programs" in ended.stdout
    assert "failures: 0" in ended.stdout


# The tolerance.


def trials_of(outputs: list[Tensor], known: dict[Tensor, Any]) -> Any:
    return Model(expand_gradients(Graph(tuple(outputs)))).measure({}, known, seed=0)


@pytest.mark.parametrize(("factor", "wrong"), [(1 + 2**-23, False), (1 + 2**-14, True), (np.nan, True)])
def test_the_tolerance_tells_rounding_from_mistakes(factor: float, wrong: bool) -> None:
    """One unit in the last place is rounding; a thousand are not, except where a subtraction has cancelled."""
    x = gc.placeholder((50,), name="x")
    trials = trials_of([gc.tanh(x) * 3, gc.exp(x) - gc.exp(x + 1e-5)], {x: np.linspace(0.5, 2, 50, dtype=np.float32)})
    first = (trials.plain[0] * factor).astype(np.float32)
    assert bool(differences([first, trials.plain[1]], trials)) is wrong
    cancelled = trials.plain[1] * np.float32(1 + 2**-14)
    assert not differences([trials.plain[0], cancelled], trials)
    assert differences([trials.plain[0].astype(np.float64), cancelled], trials)


def test_correctly_rounded_arithmetic_must_agree_to_the_bit() -> None:
    x = gc.placeholder((3,), name="x")
    trials = trials_of([(x * 3 - 1) / 7, gc.square(gc.sqrt(gc.abs(x)))], {x: np.array([0.1, 1, 5], np.float32)})
    assert not differences(trials.plain, trials)
    assert differences([np.nextafter(trials.plain[0], np.float32(9)), trials.plain[1]], trials)


def test_a_decision_within_rounding_is_skipped_and_one_beyond_it_is_not() -> None:
    x = gc.placeholder((2,), name="x")
    trials = trials_of([gc.floor(gc.exp(x)), gc.exp(x) > 1.0], {x: np.array([1e-7, 1.0], np.float32)})
    near = [np.array([0, 2], np.float32), np.array([False, True])]
    tally = Tally()
    assert not differences(near, trials, tally)
    assert tally.skipped == 1
    assert differences([np.array([1, 3], np.float32), near[1]], trials)
    assert differences([near[0], np.array([True, False])], trials)


def test_zeros_have_signs_unless_an_extremum_chose_them() -> None:
    x, y = gc.placeholder((1,), name="x"), gc.placeholder((1,), name="y")
    known = {x: np.array([0.0], np.float32), y: np.array([-0.0], np.float32)}
    trials = trials_of([-x, gc.maximum(x, y)], known)
    minus, plus = np.array([-0.0], np.float32), np.array([0.0], np.float32)
    assert not differences([minus, minus], trials)
    assert not differences([minus, plus], trials)
    assert differences([plus, plus], trials)


def test_a_sum_may_be_added_up_one_term_after_the_other() -> None:
    """Equal terms round alike, again and again; a term that is left out is more than that."""
    x = gc.placeholder((3, 9587), "float64", name="x")
    known = {x: np.repeat([[0.1], [1 / 3], [7.7]], 9587, 1)}
    trials = Model(Graph((gc.sum(x, 1),), ())).measure({}, known, seed=0, trials=48)
    in_order = np.add.accumulate(known[x], 1)[:, -1]
    assert not differences([in_order], trials)
    assert differences([in_order - known[x][:, 0]], trials)


def test_a_product_may_be_added_up_one_term_after_the_other() -> None:
    x, y = gc.placeholder((4, 1243), "float64", name="x"), gc.placeholder((1243, 1), "float64", name="y")
    rng = np.random.default_rng(0)
    known = {x: rng.uniform(-0.5, 0.5, x.shape), y: rng.uniform(-0.5, 0.5, y.shape)}
    trials = Model(Graph((x @ y,), ())).measure({}, known, seed=0, trials=48)
    in_order = np.add.accumulate(known[x] * known[y].T, 1)[:, -1:]
    assert not differences([in_order], trials)
    assert differences([in_order * (1 + 1e-12)], trials)
