"""What each public function that is no op of its own is in PyTorch, or why PyTorch has none.

A :class:`Pair` has the same thing in both, as functions of the inputs, and how the inputs are drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

import graphc as gc
from graphc import nn

Array = np.ndarray[Any, Any]
Rng = np.random.Generator
Draw = Callable[[Rng, Any], Array]


@dataclass(frozen=True)
class Pair:
    """One way to call a function. What PyTorch does not differentiate is detached, and stopped on the other side."""

    mine: Callable[..., Any]
    theirs: Callable[..., Any]
    inputs: tuple[Draw, ...]


def reals(*shape: int, low: float = -2.0, high: float = 2.0) -> Draw:
    return lambda rng, dtype: rng.uniform(low, high, shape).astype(dtype)


def chances(*shape: int) -> Draw:
    return reals(*shape, low=0.05, high=0.95)


def labels(*shape: int, classes: int) -> Draw:
    return lambda rng, dtype: rng.integers(0, classes, shape)


def signs(*shape: int) -> Draw:
    return lambda rng, dtype: rng.choice([-1, 1], shape).astype(dtype)


def shares(*shape: int) -> Draw:
    """Rows that add up to 1."""

    def drawn(rng: Rng, dtype: Any) -> Array:
        values = rng.uniform(0.1, 1, shape)
        return (values / values.sum(-1, keepdims=True)).astype(dtype)

    return drawn


A, B = reals(4, 5), reals(4, 5)
WIDE = reals(6, 7, low=-30, high=30)
REDUCTIONS = ("mean", "sum", "none")


def _alone(mine: Callable[..., Any], theirs: Callable[..., Any]) -> list[Pair]:
    return [Pair(mine, theirs, (A,)), Pair(mine, theirs, (WIDE,))]


def _loss(mine: Callable[..., Any], theirs: Callable[..., Any], *inputs: Draw, **options: Any) -> list[Pair]:
    return [
        Pair(
            lambda *t, r=r: mine(*t, reduction=r, **options), lambda *t, r=r: theirs(*t, reduction=r, **options), inputs
        )
        for r in REDUCTIONS
    ]


def _classes(mine: Callable[..., Any], theirs: Callable[..., Any], first: Draw) -> list[Pair]:
    """Losses of labels along the last axis, with what both libraries offer."""
    ways: list[Pair] = []
    for r in REDUCTIONS:
        ways += [
            Pair(lambda x, y, r=r: mine(x, y, reduction=r), lambda x, y, r=r: theirs(x, y, reduction=r),
                 (first, labels(6, classes=5))),
            Pair(lambda x, y, w, r=r: mine(x, y, weight=gc.stop_gradient(w), reduction=r),
                 lambda x, y, w, r=r: theirs(x, y, weight=w.detach(), reduction=r),
                 (first, labels(6, classes=5), chances(5))),
            Pair(lambda x, y, r=r: mine(x, y, ignore_index=2, reduction=r),
                 lambda x, y, r=r: theirs(x, y, ignore_index=2, reduction=r), (first, labels(6, classes=5))),
        ]  # fmt: skip
    return ways


def _smoothed() -> list[Pair]:
    ways: list[Pair] = []
    for r in REDUCTIONS:
        options = {"label_smoothing": 0.2, "reduction": r}
        ways += [
            Pair(lambda x, y, o=options: nn.cross_entropy(x, y, **o),
                 lambda x, y, o=options: F.cross_entropy(x, y, **o), (reals(6, 5), labels(6, classes=5))),
            Pair(lambda x, y, w, o=options: nn.cross_entropy(x, y, weight=gc.stop_gradient(w), **o),
                 lambda x, y, w, o=options: F.cross_entropy(x, y, weight=w.detach(), **o),
                 (reals(6, 5), labels(6, classes=5), chances(5))),
        ]  # fmt: skip
    return ways


def _shares() -> list[Pair]:
    """Labels that are probabilities. PyTorch's mean divides by the number of samples, which are the rows here."""
    return [
        Pair(lambda x, y, r=r: nn.cross_entropy(x, y, reduction=r),
             lambda x, y, r=r: F.cross_entropy(x, y, reduction=r), (reals(6, 5), shares(6, 5)))
        for r in REDUCTIONS
    ]  # fmt: skip


def _einsum(equation: str, *inputs: Draw) -> Pair:
    return Pair(lambda *t: gc.einsum(equation, *t), lambda *t: torch.einsum(equation, *t), inputs)


def _axes(mine: Callable[..., Any], theirs: Callable[..., Any]) -> list[Pair]:
    """Reductions along one axis, two, and all."""
    return [
        Pair(lambda x, a=a, k=k: mine(x, a, keepdims=k), lambda x, a=a, k=k: theirs(x, a, keepdim=k), (reals(2, 3, 4),))
        for a in (0, -1, (0, 2), (0, 1, 2))
        for k in (False, True)
    ]


def _spread(mine: Callable[..., Any], theirs: Callable[..., Any]) -> list[Pair]:
    return [
        Pair(lambda x, a=a, c=c: mine(x, a, correction=c), lambda x, a=a, c=c: theirs(x, a, correction=c),
             (reals(3, 4, 5),))
        for a in (0, -1, (0, 2))
        for c in (0, 1)
    ]  # fmt: skip


FUNCTIONS: dict[str, list[Pair]] = {
    "argmax": [Pair(lambda x: gc.argmax(x, 1), lambda x: torch.argmax(x, 1), (A,))],
    "argmin": [Pair(lambda x: gc.argmin(x, 0), lambda x: torch.argmin(x, 0), (A,))],
    "batch_norm": [
        Pair(lambda x, w, b: nn.batch_norm(x, weight=w, bias=b, training=True),
             lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), (reals(6, 3), chances(3), reals(3))),
        Pair(lambda x, m, v: nn.batch_norm(x, gc.stop_gradient(m), gc.stop_gradient(v)),
             lambda x, m, v: F.batch_norm(x, m.detach(), v.detach()),
             (reals(6, 3, 2), reals(3), chances(3))),
    ],
    "binary_cross_entropy": _loss(nn.binary_cross_entropy, F.binary_cross_entropy, chances(4, 5), chances(4, 5)),
    "binary_cross_entropy_with_logits": [
        *_loss(nn.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits, WIDE, chances(6, 7)),
        Pair(lambda x, y, w, p: nn.binary_cross_entropy_with_logits(
                 x, y, weight=gc.stop_gradient(w), pos_weight=gc.stop_gradient(p)),
             lambda x, y, w, p: F.binary_cross_entropy_with_logits(x, y, weight=w.detach(), pos_weight=p.detach()),
             (A, chances(4, 5), chances(5), chances(5))),
    ],
    "celu": [Pair(lambda x: nn.celu(x, 1.5), lambda x: F.celu(x, 1.5), (A,))],
    "cosine_embedding_loss": _loss(nn.cosine_embedding_loss, F.cosine_embedding_loss, A, B, signs(4), margin=0.2),
    "cosine_similarity": [Pair(nn.cosine_similarity, lambda x, y: F.cosine_similarity(x, y, -1), (A, B))],
    "count_nonzero": [Pair(lambda x: gc.count_nonzero(gc.round(x), 1),
                           lambda x: torch.count_nonzero(torch.round(x), 1), (A,))],
    "cross_entropy": [*_classes(nn.cross_entropy, F.cross_entropy, reals(6, 5)), *_smoothed(), *_shares()],
    "cumulative_prod": [Pair(lambda x: gc.cumulative_prod(x, 1), lambda x: torch.cumprod(x, 1), (A,))],
    "dropout": [Pair(lambda x: nn.dropout(x, 0.5, training=False), lambda x: F.dropout(x, 0.5, training=False), (A,))],
    "einsum": [
        _einsum("ij,jk->ik", A, reals(5, 3)), _einsum("bij,bjk->bik", reals(2, 3, 4), reals(2, 4, 5)),
        _einsum("ij,ij->", A, B), _einsum("i,j->ij", reals(3), reals(4)), _einsum("...i,...i->...", A, B),
        _einsum("ij,jk,kl->il", A, reals(5, 3), reals(3, 2)), _einsum("ij->ji", A),
    ],
    "elu": [Pair(lambda x: nn.elu(x, 1.3), lambda x: F.elu(x, 1.3), (A,)), *_alone(nn.elu, F.elu)],
    "embedding": [Pair(nn.embedding, F.embedding, (labels(3, 4, classes=5), reals(5, 2)))],
    "eye": [Pair(lambda: gc.eye(3, 4), lambda: torch.eye(3, 4), ())],
    "flip": [Pair(lambda x: gc.flip(x, (0, 1)), lambda x: torch.flip(x, (0, 1)), (A,))],
    "full": [Pair(lambda: gc.full((2, 3), 1.5), lambda: torch.full((2, 3), 1.5), ())],
    "full_like": [Pair(lambda x: gc.full_like(x, 2.5), lambda x: torch.full_like(x, 2.5), (A,))],
    "gelu": [*_alone(nn.gelu, F.gelu), *_alone(lambda x: nn.gelu(x, "tanh"), lambda x: F.gelu(x, approximate="tanh"))],
    "getitem": [
        Pair(lambda x: x[1:, ::2], lambda x: x[1:, ::2], (A,)), Pair(lambda x: x[..., -1], lambda x: x[..., -1], (A,)),
        Pair(lambda x: x[None, :, 2:4], lambda x: x[None, :, 2:4], (A,)),
        Pair(lambda x, i: x[i], lambda x, i: x[i], (A, labels(6, classes=4))),
        Pair(lambda x, i, j: x[i, j], lambda x, i, j: x[i, j], (A, labels(6, classes=4), labels(6, classes=5))),
    ],
    "hardsigmoid": _alone(nn.hardsigmoid, F.hardsigmoid),
    "hardswish": _alone(nn.hardswish, F.hardswish),
    "hardtanh": _alone(lambda x: nn.hardtanh(x, -0.5, 1.5), lambda x: F.hardtanh(x, -0.5, 1.5)),
    "hinge_embedding_loss": _loss(nn.hinge_embedding_loss, F.hinge_embedding_loss, A, signs(4, 5)),
    "huber_loss": _loss(nn.huber_loss, F.huber_loss, A, B, delta=0.7),
    "kl_div": [
        *_loss(lambda x, y, **o: nn.kl_div(gc.log(x), y, **o), lambda x, y, **o: F.kl_div(torch.log(x), y, **o),
               shares(4, 5), shares(4, 5)),
        Pair(lambda x, y: nn.kl_div(x, y, reduction="batchmean", log_target=True),
             lambda x, y: F.kl_div(x, y, reduction="batchmean", log_target=True), (A, B)),
    ],
    "l1_loss": _loss(nn.l1_loss, F.l1_loss, A, B),
    "layer_norm": [
        Pair(lambda x, w, b: nn.layer_norm(x, -1, w, b), lambda x, w, b: F.layer_norm(x, (5,), w, b),
             (A, chances(5), reals(5))),
        Pair(lambda x: nn.layer_norm(x, (1, 2)), lambda x: F.layer_norm(x, (3, 4)), (reals(2, 3, 4),)),
    ],
    "leaky_relu": _alone(lambda x: nn.leaky_relu(x, 0.1), lambda x: F.leaky_relu(x, 0.1)),
    "linspace": [Pair(lambda: gc.linspace(-1.0, 2.0, 7), lambda: torch.linspace(-1.0, 2.0, 7), ())],
    "log_sigmoid": _alone(nn.log_sigmoid, F.logsigmoid),
    "matrix_transpose": [Pair(gc.matrix_transpose, lambda x: x.mT, (reals(2, 3, 4),))],
    "mean": _axes(gc.mean, torch.mean),
    "mish": _alone(nn.mish, F.mish),
    "moveaxis": [Pair(lambda x: gc.moveaxis(x, 0, -1), lambda x: torch.moveaxis(x, 0, -1), (reals(2, 3, 4),))],
    "mse_loss": _loss(nn.mse_loss, F.mse_loss, A, B),
    "nll_loss": _classes(nn.nll_loss, F.nll_loss, reals(6, 5, low=-4, high=-0.1)),
    "ones": [Pair(lambda: gc.ones((2, 3)), lambda: torch.ones((2, 3)), ())],
    "ones_like": [Pair(gc.ones_like, torch.ones_like, (A,))],
    "outer": [Pair(gc.outer, torch.outer, (reals(3), reals(4)))],
    "prelu": [Pair(nn.prelu, F.prelu, (reals(4, 5), chances(5)))],
    "relu6": _alone(nn.relu6, F.relu6),
    "repeat": [Pair(lambda x: gc.repeat(x, 3, 1), lambda x: torch.repeat_interleave(x, 3, 1), (A,))],
    "rms_norm": [Pair(lambda x, w: nn.rms_norm(x, -1, w), lambda x, w: F.rms_norm(x, (5,), w), (A, chances(5)))],
    "selu": _alone(nn.selu, F.selu),
    "silu": _alone(nn.silu, F.silu),
    "smooth_l1_loss": _loss(nn.smooth_l1_loss, F.smooth_l1_loss, A, B, beta=0.7),
    "softplus": [
        *_alone(nn.softplus, lambda x: F.softplus(x, threshold=1000)),
        Pair(lambda x: nn.softplus(x, 2.5), lambda x: F.softplus(x, 2.5, threshold=1000), (A,)),
    ],
    "softsign": _alone(nn.softsign, F.softsign),
    "split": [Pair(lambda x: gc.split(x, [1, 3], 1)[1], lambda x: torch.tensor_split(x, (1, 3), 1)[1], (A,))],
    "stack": [Pair(lambda x, y: gc.stack([x, y], 1), lambda x, y: torch.stack([x, y], 1), (A, B))],
    "std": _spread(gc.std, torch.std),
    "take": [Pair(lambda x, i: gc.take(x, i, 1), lambda x, i: x[:, i], (A, labels(3, classes=5)))],
    "take_along_axis": [
        Pair(lambda x, i: gc.take_along_axis(x, i, 1), lambda x, i: torch.take_along_dim(x, i, 1),
             (A, labels(4, 2, classes=5)))
    ],
    "tanhshrink": _alone(nn.tanhshrink, F.tanhshrink),
    "tensordot": [Pair(lambda x, y: gc.tensordot(x, y, 1), lambda x, y: torch.tensordot(x, y, 1), (A, reals(5, 2, 3)))],
    "tile": [Pair(lambda x: gc.tile(x, (2, 3)), lambda x: torch.tile(x, (2, 3)), (A,))],
    "trace": [Pair(gc.trace, torch.trace, (reals(4, 4),))],
    "tril": [Pair(lambda x: gc.tril(x, 1), lambda x: torch.tril(x, 1), (A,))],
    "triu": [Pair(lambda x: gc.triu(x, -1), lambda x: torch.triu(x, -1), (A,))],
    "unstack": [Pair(lambda x: gc.unstack(x, 1)[2], lambda x: torch.unbind(x, 1)[2], (A,))],
    "var": _spread(gc.var, torch.var),
    "vecdot": [Pair(gc.vecdot, torch.linalg.vecdot, (A, B))],
    "zeros": [Pair(lambda: gc.zeros((2, 3)), lambda: torch.zeros((2, 3)), ())],
    "zeros_like": [Pair(gc.zeros_like, torch.zeros_like, (A,))],
}  # fmt: skip

_RANDOM = "another generator: the numbers differ by design"
ABSENT: dict[str, str] = {
    "bernoulli": _RANDOM, "bits": _RANDOM, "categorical": _RANDOM, "integers": _RANDOM, "normal": _RANDOM,
    "uniform": _RANDOM, "broadcast_arrays": "broadcast_to, for several at once",
}  # fmt: skip
