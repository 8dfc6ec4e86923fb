"""Optimisers against PyTorch: twelve steps on two parameters, of the same formula. Lion is not in PyTorch.

Parameters and gradients are at most of the size of 1, and a step is a contraction or nearly one. So the roundings of
all steps add up, and the results may be apart by n * k units in the last place after n steps of k roundings.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import graphc as gc
from graphc import optim

STEPS = 12
ROUNDINGS = 16  # of one element in one step
Peer = Callable[[list[torch.Tensor]], torch.optim.Optimizer]

PAIRS: dict[str, tuple[optim.Optimizer, Peer]] = {
    "SGD": (optim.SGD(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    "SGD with decay": (
        optim.SGD(0.1, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, 0.1, weight_decay=0.01),
    ),
    "Momentum": (optim.Momentum(0.05, 0.8), lambda p: torch.optim.SGD(p, 0.05, 0.8)),
    "Momentum, Nesterov": (
        optim.Momentum(0.05, 0.8, nesterov=True),
        lambda p: torch.optim.SGD(p, 0.05, 0.8, nesterov=True),
    ),
    "Adam": (optim.Adam(0.01), lambda p: torch.optim.Adam(p, 0.01)),
    "Adam with decay": (
        optim.Adam(0.01, 0.8, 0.95, 1e-6, weight_decay=0.1),
        lambda p: torch.optim.Adam(p, 0.01, (0.8, 0.95), 1e-6, weight_decay=0.1),
    ),
    "AdamW": (optim.AdamW(0.01, weight_decay=0.1), lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.1)),
    "RMSprop": (optim.RMSprop(0.01), lambda p: torch.optim.RMSprop(p, 0.01)),
    "RMSprop, centred": (
        optim.RMSprop(0.01, centered=True, momentum=0.5),
        lambda p: torch.optim.RMSprop(p, 0.01, centered=True, momentum=0.5),
    ),
    "Adagrad": (optim.Adagrad(0.1), lambda p: torch.optim.Adagrad(p, 0.1)),
    "Adagrad with decay": (
        optim.Adagrad(0.1, decay=0.1, initial_sum=0.2),
        lambda p: torch.optim.Adagrad(p, 0.1, 0.1, initial_accumulator_value=0.2),
    ),
    "Adadelta": (optim.Adadelta(0.5), lambda p: torch.optim.Adadelta(p, 0.5)),
}
ABSENT = {"Lion": "PyTorch has none"}
START = {"w": (3, 4), "b": (4,)}


def test_every_optimizer_is_compared_or_absent_with_a_reason() -> None:
    public = {n for n in optim.__all__ if inspect.isclass(c := getattr(optim, n)) and issubclass(c, optim.Optimizer)}
    assert public - {"Optimizer"} == {type(mine).__name__ for mine, _ in PAIRS.values()} | set(ABSENT)


def data(dtype: str) -> tuple[dict[str, Any], Any, Any]:
    rng = np.random.default_rng(5)
    start = {name: rng.uniform(-1, 1, shape).astype(dtype) for name, shape in START.items()}
    return start, rng.uniform(-1, 1, (STEPS, 6, 3)).astype(dtype), rng.uniform(-1, 1, (STEPS, 6, 4)).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", PAIRS)
def test_optimizer(name: str, dtype: str) -> None:
    mine, theirs = PAIRS[name]
    start, xs, ys = data(dtype)
    x, y = gc.placeholder((6, 3), dtype=dtype), gc.placeholder((6, 4), dtype=dtype)
    params = {k: gc.parameter(v) for k, v in start.items()}
    step = mine.minimize(gc.mean(gc.square(gc.tanh(x @ params["w"] + params["b"]) - y)))
    peers = {k: torch.tensor(v, requires_grad=True) for k, v in start.items()}
    optimizer = theirs([*peers.values()])
    bound = STEPS * ROUNDINGS * float(np.finfo(dtype).eps)
    with gc.Session(threads=1) as session:
        for number in range(STEPS):
            session.run(step, {x: xs[number], y: ys[number]})
            optimizer.zero_grad()
            given = torch.tanh(torch.tensor(xs[number]) @ peers["w"] + peers["b"])
            torch.mean(torch.square(given - torch.tensor(ys[number]))).backward()
            optimizer.step()
        for key, p in params.items():
            np.testing.assert_allclose(session.get(p), peers[key].detach().numpy(), rtol=0, atol=bound)
            assert np.abs(session.get(p) - start[key]).max() > 100 * bound, "nothing moved by more than the tolerance"


def test_clipping_by_norm() -> None:
    rng = np.random.default_rng(6)
    arrays = [rng.uniform(-1, 1, shape) for shape in START.values()]
    peers = [torch.nn.Parameter(torch.zeros(a.shape, dtype=torch.float64)) for a in arrays]
    for limit in (0.5, 100.0):
        for p, a in zip(peers, arrays, strict=True):
            p.grad = torch.tensor(a)
        norm = torch.nn.utils.clip_grad_norm_(peers, limit)
        with gc.Session(threads=1) as session:
            clipped = session.run(optim.clip_by_norm(arrays, limit))
            assert session.run(optim.global_norm(arrays)) == pytest.approx(float(norm), rel=1e-14)
        for p, found in zip(peers, clipped, strict=True):
            assert p.grad is not None
            np.testing.assert_allclose(found, p.grad.numpy(), rtol=1e-14)
