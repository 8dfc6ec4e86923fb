"""Learning rates that follow the count of steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import optim
from graphc.errors import UpdateError
from graphc.optim import schedules


@pytest.fixture(params=["reference", "cpu"])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def values(schedule: schedules.Schedule, steps: list[int], device: str = "reference") -> list[float]:
    step = graphc.placeholder((), dtype="int64", name="step")
    rate = schedule(step)
    assert (rate.shape, rate.dtype) == ((), np.float64)
    with graphc.Session(device=device) as session:
        return [float(session.run(rate, {step: n})) for n in steps]


def ramp(then: Callable[[int], float], steps: int, start: float = 0.0) -> Callable[[int], float]:
    return lambda n: start + (then(0) - start) * n / steps if n < steps else then(n - steps)


def half_cosine(n: int) -> float:
    return 0.1 + 0.9 * (1 + math.cos(math.pi * min(n, 40) / 40)) / 2


CASES: dict[str, tuple[schedules.Schedule, Callable[[int], float]]] = {
    "step_decay": (schedules.step_decay(0.5, 7, 0.25), lambda n: 0.5 * 0.25 ** (n // 7)),
    "step_decay to 0": (schedules.step_decay(0.5, 3, 0.0), lambda n: 0.5 * 0.0 ** (n // 3)),
    "exponential": (schedules.exponential(2.0, 0.97), lambda n: 2 * 0.97**n),
    "exponential growth": (schedules.exponential(1e-6, 1.5), lambda n: 1e-6 * 1.5**n),
    "cosine": (schedules.cosine(1.0, 40, end=0.1), half_cosine),
    "cosine to 0": (schedules.cosine(1.0, 1), lambda n: 1.0 if n == 0 else 0.0),
    "warmup": (schedules.warmup(5, 0.5), ramp(lambda n: 0.5, 5)),
    "warmup from above": (schedules.warmup(5, 0.5, start=1.0), ramp(lambda n: 0.5, 5, 1.0)),
    "warmup, cosine": (schedules.warmup(10, schedules.cosine(1.0, 40, 0.1), 0.2), ramp(half_cosine, 10, 0.2)),
    "warmup of a warmup": (
        schedules.warmup(4, schedules.warmup(3, 1.0, 0.5)),
        ramp(ramp(lambda n: 1.0, 3, 0.5), 4),
    ),
    "a function of one's own": (
        schedules.warmup(4, lambda step: 1 / (1 + step.astype("float64"))), ramp(lambda n: 1 / (1 + n), 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_values(device: str, name: str) -> None:
    schedule, expected = CASES[name]
    steps = [*range(60), 99, 100]
    # Each is a handful of operations; a power's error is below 2 units in double precision on any library.
    found = values(schedule, steps, device)
    np.testing.assert_allclose(found, [expected(n) for n in steps], rtol=1e-14, atol=1e-16)


def test_the_length_of_a_step_is_exact() -> None:
    """step // every in float64 for counts that float32 cannot hold."""
    for every in (3, 49, 1000, 10**6 + 7):
        schedule = schedules.step_decay(1.0, every, 0.5)
        near = [k * every + d for k in (1, 5, 12) for d in (-1, 0, 1)]
        assert values(schedule, near) == [0.5 ** (n // every) for n in near]
    far = 3 * 10**14
    assert values(schedules.step_decay(1.0, 10**14, 0.5), [far - 1, far]) == [0.25, 0.125]


def test_an_optimizer_counts_its_steps(device: str, tmp_path: Path) -> None:
    w = graphc.parameter(np.float32(0.0), name="w")
    update = optim.SGD(schedules.step_decay(8.0, 2, 0.5)).minimize(-w)
    with graphc.Session(device=device) as session:
        step, path = session.compile(update), []
        for _ in range(6):
            step()
            path.append(float(session.get(w)))
        assert path == [8.0, 16.0, 20.0, 24.0, 26.0, 28.0]
        assert session.get("w/step") == 6
        session.save(tmp_path / "state.safetensors")
    with graphc.Session(device=device) as session:
        session.load(tmp_path / "state.safetensors")
        session.run(update)
        assert session.get(w) == 29.0


def test_two_minimisers_count_apart(device: str) -> None:
    w = graphc.parameter(np.float32(0.0), name="w")
    down = optim.SGD(schedules.exponential(1.0, 0.5))
    first, second = down.minimize(-w), down.minimize(-w * 4)
    with graphc.Session(device=device) as session:
        for update in (first, first, second):
            session.run(update)
        assert session.get(w) == 1.0 + 0.5 + 4.0


def test_adam_has_one_count_for_both(device: str) -> None:
    w = graphc.parameter(np.float32(0.0), name="w")
    update = optim.Adam(schedules.warmup(2, 0.5)).minimize(-w)
    assert [a.inputs[0].name for a in update] == ["w/step", "w/adam_m", "w/adam_v", "w"]
    with graphc.Session(device=device) as session:
        path = []
        for _ in range(4):
            session.run(update)
            path.append(float(session.get(w)))
    # Every step of Adam along a constant gradient is the learning rate.
    np.testing.assert_allclose(path, [0.0, 0.25, 0.75, 1.25], rtol=1e-5)


def test_rates_may_be_tensors(device: str) -> None:
    top = graphc.parameter(np.float32(0.5), name="top", trainable=False)
    made = [
        schedules.step_decay(top, 2, top), schedules.exponential(top, top), schedules.cosine(top, 4, top * 0.5),
        schedules.warmup(4, top, top * 0.5),
    ]  # fmt: skip
    found = [values(schedule, [2], device)[0] for schedule in made]
    np.testing.assert_allclose(found, [0.25, 0.125, 0.375, 0.375], rtol=1e-15)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: schedules.step_decay(0.1, 0), "step_decay: every must be a whole number of at least 1, got 0"),
        (lambda: schedules.cosine(0.1, 1.5), "cosine: steps must be a whole number of at least 1, got 1.5"),
        (lambda: schedules.cosine(-0.1, 5), "cosine: rate must be a number, at least 0, got -0.1"),
        (lambda: schedules.warmup(5, "cosine"), "warmup: then must be a number, at least 0, got 'cosine'"),
        (lambda: schedules.warmup(True, 0.1), "warmup: steps must be a whole number"),
        (lambda: schedules.exponential(0.1, math.inf), "exponential: factor must be a number"),
    ],
)
def test_settings_are_checked(make: Any, words: str) -> None:
    with pytest.raises(UpdateError, match=words):
        make()


@pytest.mark.parametrize("bad", [lambda step: 0.1, lambda step: step, lambda step: graphc.ones_like(step)])
def test_a_schedule_returns_a_float_scalar(bad: Any) -> None:
    w = graphc.parameter(np.float32(0.0), name="w")
    with pytest.raises(UpdateError, match="SGD: a schedule must return a float scalar tensor, got"):
        optim.SGD(bad).minimize(w * w)
