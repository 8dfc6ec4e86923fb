"""Derivatives where there is no single one: kinks, ties and the ends of domains. Either both libraries choose the same,
or the difference is listed with its reason, and both choices are asserted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812

import graphc as gc
from graphc import nn

inf, nan = np.inf, np.nan
Case = tuple[Callable[..., Any], Callable[..., Any], tuple[list[float], ...]]

KINKS: dict[str, Case] = {
    "abs": (gc.abs, torch.abs, ([-0.0, 0.0],)),
    "relu": (gc.relu, torch.relu, ([0.0, -0.0],)),
    "relu6": (nn.relu6, F.relu6, ([0.0, 6.0],)),
    "hardtanh": (nn.hardtanh, F.hardtanh, ([-1.0, 1.0],)),
    "hardsigmoid": (nn.hardsigmoid, F.hardsigmoid, ([-3.0, 3.0],)),
    "hardswish": (nn.hardswish, F.hardswish, ([-3.0, 3.0],)),
    "leaky_relu": (lambda x: nn.leaky_relu(x, 0.25), lambda x: F.leaky_relu(x, 0.25), ([0.0],)),
    "prelu": (lambda x: nn.prelu(x, 0.25), lambda x: F.prelu(x, torch.tensor([0.25], dtype=x.dtype)), ([0.0],)),
    "elu": (lambda x: nn.elu(x, 0.5), lambda x: F.elu(x, 0.5), ([0.0],)),
    "selu": (nn.selu, F.selu, ([0.0],)),
    "celu": (lambda x: nn.celu(x, 0.5), lambda x: F.celu(x, 0.5), ([0.0],)),
    "softsign": (nn.softsign, F.softsign, ([0.0],)),
    "sqrt": (gc.sqrt, torch.sqrt, ([0.0],)),
    "rsqrt": (gc.rsqrt, torch.rsqrt, ([0.0],)),
    "log": (gc.log, torch.log, ([0.0],)),
    "log1p": (gc.log1p, torch.log1p, ([-1.0],)),
    "reciprocal": (gc.reciprocal, torch.reciprocal, ([0.0],)),
    "asin": (gc.asin, torch.asin, ([-1.0, 1.0],)),
    "acos": (gc.acos, torch.acos, ([-1.0, 1.0],)),
    "acosh": (gc.acosh, torch.acosh, ([1.0],)),
    "atanh": (gc.atanh, torch.atanh, ([-1.0, 1.0],)),
    "maximum": (gc.maximum, torch.maximum, ([1.0, 2.0, nan], [1.0, 2.0, 1.0])),
    "minimum": (gc.minimum, torch.minimum, ([1.0, 2.0, 1.0], [1.0, 2.0, nan])),
    "max": (lambda x: gc.max(x, 0), lambda x: torch.amax(x, 0), ([3.0, 1.0, 3.0, 3.0],)),
    "min": (lambda x: gc.min(x, 0), lambda x: torch.amin(x, 0), ([3.0, 1.0, 1.0, 3.0],)),
    "clip": (lambda x: gc.clip(x, -1.0, 1.0), lambda x: torch.clamp(x, -1.0, 1.0), ([-1.0, 1.0, 2.0, nan],)),
    "pow of 0": (gc.pow, torch.pow, ([0.0, 0.0, 0.0, 0.0], [2.0, 1.0, 0.5, 0.0])),
    "prod with a zero": (lambda x: gc.prod(x, 0), lambda x: torch.prod(x, 0), ([2.0, 0.0, 3.0],)),
    "prod with two zeros": (lambda x: gc.prod(x, 0), lambda x: torch.prod(x, 0), ([2.0, 0.0, 0.0],)),
    "cumulative_prod with a zero": (
        lambda x: gc.cumulative_prod(x, 0),
        lambda x: torch.cumprod(x, 0),
        ([2.0, 0.0, 3.0, 0.0],),
    ),
    "hypot": (gc.hypot, torch.hypot, ([0.0], [0.0])),
    "atan2": (gc.atan2, torch.atan2, ([0.0], [0.0])),
    "copysign": (gc.copysign, torch.copysign, ([0.0, 1.0], [1.0, 0.0])),
    "remainder": (gc.remainder, torch.remainder, ([4.0, -4.0], [2.0, 2.0])),
    "fmod": (gc.fmod, torch.fmod, ([4.0, -4.0], [2.0, 2.0])),
    "logaddexp of -inf": (gc.logaddexp, torch.logaddexp, ([-inf, -inf, 0.0], [-inf, 0.0, -inf])),
    "logsumexp with -inf": (lambda x: gc.logsumexp(x, 0), lambda x: torch.logsumexp(x, 0), ([-inf, 1.0, 2.0],)),
    "softmax with -inf": (gc.softmax, lambda x: torch.softmax(x, -1), ([-inf, 1.0, 2.0],)),
    "std of equal numbers": (lambda x: gc.std(x, 0), lambda x: torch.std(x, 0, correction=0), ([2.0, 2.0],)),
    "l1_loss": (
        lambda x: nn.l1_loss(x, gc.zeros_like(x), reduction="none"),
        lambda x: F.l1_loss(x, torch.zeros_like(x), reduction="none"),
        ([0.0],),
    ),
    "huber_loss": (
        lambda x: nn.huber_loss(x, gc.zeros_like(x), reduction="none"),
        lambda x: F.huber_loss(x, torch.zeros_like(x), reduction="none"),
        ([-1.0, 1.0, 0.0],),
    ),
    "smooth_l1_loss": (
        lambda x: nn.smooth_l1_loss(x, gc.zeros_like(x), reduction="none"),
        lambda x: F.smooth_l1_loss(x, torch.zeros_like(x), reduction="none"),
        ([-1.0, 1.0, 0.0],),
    ),
    "hinge_embedding_loss": (
        lambda x: nn.hinge_embedding_loss(x, -gc.ones_like(x), reduction="none"),
        lambda x: F.hinge_embedding_loss(x, -torch.ones_like(x), reduction="none"),
        ([1.0],),
    ),
    "binary_cross_entropy at 0 and 1": (
        lambda p: nn.binary_cross_entropy(p, gc.ones_like(p) * 0.5, reduction="none"),
        lambda p: F.binary_cross_entropy(p, torch.ones_like(p) * 0.5, reduction="none"),
        ([0.0, 1.0],),
    ),
    "binary_cross_entropy_with_logits at 0": (
        lambda x: nn.binary_cross_entropy_with_logits(x, gc.ones_like(x), reduction="none"),
        lambda x: F.binary_cross_entropy_with_logits(x, torch.ones_like(x), reduction="none"),
        ([0.0],),
    ),
    "kl_div of a target 0": (
        lambda y: nn.kl_div(gc.zeros_like(y), y, reduction="none"),
        lambda y: F.kl_div(torch.zeros_like(y), y, reduction="none"),
        ([0.0, 0.5],),
    ),
}

# Name: why, what graphc gives, what PyTorch gives (one list for each input).
DIFFERENT: dict[str, tuple[str, list[list[float]], list[list[float]]]] = {
    "maximum": (
        "of a NaN neither operand is the larger",
        [[0.5, 0.5, 0], [0.5, 0.5, 0]],
        [[0.5, 0.5, 1], [0.5, 0.5, 1]],
    ),
    "minimum": (
        "of a NaN neither operand is the smaller",
        [[0.5, 0.5, 0], [0.5, 0.5, 0]],
        [[0.5, 0.5, 1], [0.5, 0.5, 1]],
    ),
    "hypot": ("0 is the mean of all slopes at the tip; PyTorch divides 0 by 0", [[0], [0]], [[nan], [nan]]),
    "logaddexp of -inf": (
        "equal operands share the cotangent, infinite ones too",
        [[0.5, 0, 1], [0.5, 1, 0]],
        [[nan, 0, 1], [nan, 1, 0]],
    ),
    "binary_cross_entropy at 0 and 1": (
        "the bound 1e-12 is a float32 in PyTorch, also in float64",
        [[-499999999999.5, 499999999999.5]],
        [[-500000001997.9014, 500000001997.9014]],
    ),
    "kl_div of a target 0": (
        "0 * log(0) is 0 with all its derivatives for the loss; PyTorch multiplies 0 by infinity",
        [[0, 1 + np.log(0.5)]],
        [[nan, 1 + np.log(0.5)]],
    ),
}


@pytest.fixture(scope="module")
def session() -> Iterator[gc.Session]:
    with gc.Session(threads=1) as opened:
        yield opened


def test_what_differs_is_a_case() -> None:
    assert set(DIFFERENT) <= set(KINKS)


@pytest.mark.parametrize("name", KINKS)
def test_kink(name: str, session: gc.Session) -> None:
    mine, theirs, points = KINKS[name]
    arrays = [np.array(p) for p in points]
    inputs = [gc.placeholder(a.shape, dtype="float64") for a in arrays]
    found = session.run(gc.gradients(gc.sum(mine(*inputs)), inputs), dict(zip(inputs, arrays, strict=True)))
    given = [torch.tensor(a, requires_grad=True) for a in arrays]
    peers = [g.numpy() for g in torch.autograd.grad(theirs(*given).sum(), given)]
    ours = [np.asarray(a) for a in found]
    if name in DIFFERENT:
        _, wanted, other = DIFFERENT[name]
        np.testing.assert_allclose(ours, wanted, rtol=1e-12)
        np.testing.assert_allclose(peers, other, rtol=1e-12)
        assert not np.allclose(ours, peers, rtol=1e-12, equal_nan=True), "no difference any more: take it from the list"
    else:
        np.testing.assert_allclose(ours, peers, rtol=1e-12)
