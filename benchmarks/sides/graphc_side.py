"""graphc: one graph and one session a workload; arrays are fed, parameters live in the session."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import graphc
from benchmarks.sides import Case
from benchmarks.workloads import ATTN_PARAMETERS, RATE, Arrays, Sizes, layers_of
from graphc import nn


def start(threads: int, variant: str) -> None:
    """A session takes as many threads as the process has cores, which the worker has set. Imports what it runs on."""
    import scipy.linalg.cython_blas  # noqa: F401

    import runtime.cpu.backend  # noqa: F401


def versions() -> dict[str, str]:
    from runtime.config import describe

    found = describe()
    kept = ("graphc", "python", "numpy", "scipy", "numba", "processor", "threads", "thread layer", "blas")
    return {name: found[name] for name in kept if name in found}


def _case(
    fetches: Any, feeds: Mapping[Any, np.ndarray], values: Callable[[Any], Mapping[str, Any]], by_run: bool = False
) -> Case:
    """A compiled step with these feeds, or ``Session.run`` of the same."""
    session = graphc.Session()
    step = session.compile(fetches, feeds=list(feeds))
    arrays = tuple(feeds.values())
    folder = tempfile.TemporaryDirectory(prefix="graphc-bench-")
    first = Path(folder.name) / "first.safetensors"
    session.save(first)

    def close() -> None:
        session.close()
        folder.cleanup()

    def facts() -> dict[str, int]:
        report = step.memory_report(*arrays)
        compiled = session.stats()["kernels_compiled"]
        return {"temporaries": report.arena, "least": report.largest_live, "compiled": compiled}

    return Case(
        (lambda: session.run(fetches, feeds)) if by_run else (lambda: step(*arrays)),
        values,
        lambda: session.load(first),
        close,
        lambda others: step(*[others[t.name] for t in feeds]),
        facts,
    )


def _training(loss: graphc.Tensor, train: graphc.Update, feeds: Mapping[Any, np.ndarray]) -> Case:
    return _case([loss, train], feeds, lambda found: {"loss": found[0]})


def _inputs(arrays: Arrays, names: Sequence[str], batch: bool = False) -> list[graphc.Tensor]:
    """Placeholders; ``batch`` leaves the first extent open."""
    return [
        graphc.placeholder(("batch", *arrays[n].shape[1:]) if batch else arrays[n].shape, arrays[n].dtype, name=n)
        for n in names
    ]


def _feeds(tensors: Sequence[graphc.Tensor], arrays: Arrays) -> dict[graphc.Tensor, np.ndarray]:
    return {t: arrays[t.name] for t in tensors}


def seed(arrays: Arrays, sizes: Sizes) -> Case:
    x, y = feeds = _inputs(arrays, ("x", "y"), batch=True)
    w1, w2 = (graphc.parameter(arrays[n], name=n) for n in ("w1", "w2"))
    loss = ((graphc.relu(x @ w1) @ w2 - y) ** 2).sum()
    train = graphc.optim.SGD(RATE["seed"]).minimize(loss)
    return _training(loss, train, _feeds(feeds, arrays))


def classifier(arrays: Arrays, sizes: Sizes) -> Case:
    x, labels = feeds = _inputs(arrays, ("x", "labels"), batch=True)
    hidden = x
    layers = layers_of(arrays)
    for i, (w, b) in enumerate(layers):
        hidden = hidden @ graphc.parameter(w, name=f"w{i}") + graphc.parameter(b, name=f"b{i}")
        if i + 1 < len(layers):
            hidden = nn.relu(hidden)
    loss = nn.cross_entropy(hidden, labels)
    return _training(loss, graphc.optim.Adam(RATE["adam"]).minimize(loss), _feeds(feeds, arrays))


def tiny(arrays: Arrays, sizes: Sizes, by_run: bool) -> Case:
    (x,) = _inputs(arrays, ("x",))
    w, b = (graphc.parameter(arrays[n], name=n) for n in ("w", "b"))
    return _case(graphc.tanh(x * w + b) * 2 - x, _feeds([x], arrays), lambda found: {"y": found}, by_run)


def chain(arrays: Arrays, sizes: Sizes) -> Case:
    x, w = feeds = _inputs(arrays, ("x", "w"))
    value = nn.gelu(x * w, approximate="tanh").mean()
    gradient = graphc.gradients(value, w)
    return _case([value, gradient], _feeds(feeds, arrays), lambda found: {"value": found[0], "w": found[1]})


def softmax(arrays: Arrays, sizes: Sizes) -> Case:
    logits, labels = feeds = _inputs(arrays, ("logits", "labels"))
    value = nn.cross_entropy(logits, labels)
    gradient = graphc.gradients(value, logits)
    return _case([value, gradient], _feeds(feeds, arrays), lambda found: {"value": found[0], "logits": found[1]})


def norm(arrays: Arrays, sizes: Sizes) -> Case:
    x, t = feeds = _inputs(arrays, ("x", "t"))
    scale, bias = (graphc.parameter(arrays[n], name=n) for n in ("scale", "bias"))
    value = (_layer_norm(x, scale, bias) * t).sum()
    fetches = [value, *graphc.gradients(value, [x, scale, bias])]
    names = ("value", "x", "scale", "bias")
    return _case(fetches, _feeds(feeds, arrays), lambda found: dict(zip(names, found, strict=True)))


def _layer_norm(x: graphc.Tensor, scale: graphc.Tensor, bias: graphc.Tensor) -> graphc.Tensor:
    return nn.layer_norm(x, -1, scale, bias, epsilon=1e-5)


def attn(arrays: Arrays, sizes: Sizes) -> Case:
    x, target = feeds = _inputs(arrays, ("x", "target"), batch=True)
    p = {name: graphc.parameter(arrays[name], name=name) for name in ATTN_PARAMETERS}
    heads, length, width = sizes["heads"], sizes["length"], sizes["width"]
    each = width // heads

    qkv = _layer_norm(x, p["norm1_w"], p["norm1_b"]) @ p["qkv_w"] + p["qkv_b"]
    qkv = graphc.permute_dims(qkv.reshape((-1, length, 3, heads, each)), (2, 0, 3, 1, 4))
    q, k, v = qkv[0], qkv[1], qkv[2]
    weights = nn.softmax(q @ k.mT * (1 / math.sqrt(each)), axis=-1)
    mixed = graphc.permute_dims(weights @ v, (0, 2, 1, 3)).reshape((-1, length, width))
    x1 = x + mixed @ p["out_w"] + p["out_b"]
    wide = _layer_norm(x1, p["norm2_w"], p["norm2_b"]) @ p["up_w"] + p["up_b"]
    y = x1 + nn.gelu(wide, approximate="tanh") @ p["down_w"] + p["down_b"]
    loss = nn.mse_loss(y, target)
    return _training(loss, graphc.optim.Adam(RATE["adam"]).minimize(loss), _feeds(feeds, arrays))


def reduce(arrays: Arrays, sizes: Sizes, sums: Mapping[str, int | None]) -> Case:
    (x,) = _inputs(arrays, ("x",))
    fetches = {name: graphc.sum(x, axis=axis) for name, axis in sums.items()}
    return _case(fetches, _feeds([x], arrays), lambda found: found)


def elementwise(arrays: Arrays, sizes: Sizes, function: str, operands: Sequence[str]) -> Case:
    feeds = _inputs(arrays, operands)
    return _case(getattr(graphc, function)(*feeds), _feeds(feeds, arrays), lambda found: {"y": found})
