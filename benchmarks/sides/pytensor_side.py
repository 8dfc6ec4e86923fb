"""PyTensor in Numba mode: inputs and parameters are shared variables, one function with ``updates`` a step."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numba
import numpy as np
import pytensor
import pytensor.link.numba.dispatch  # what the mode would import
import pytensor.tensor as pt

from benchmarks.sides import Case
from benchmarks.workloads import ATTN_PARAMETERS, RATE, Arrays, Sizes, layers_of


def start(threads: int, variant: str) -> None:
    pytensor.config.floatX = "float32"
    pytensor.config.mode = "NUMBA"
    numba.set_num_threads(threads)


def versions() -> dict[str, str]:
    return {"python": sys.version.split()[0], "pytensor": pytensor.__version__, "numba": numba.__version__}


def _shared(array: np.ndarray, name: str) -> Any:
    return pytensor.shared(np.array(array), name=name, borrow=True)


def _outputs(tensors: Mapping[str, Any], updates: Sequence[tuple[Any, Any]] = ()) -> Callable[[], Any]:
    """A function of no arguments; results are the caller's without a copy."""
    outputs = [pytensor.Out(t, borrow=True) for t in tensors.values()]
    function = pytensor.function([], outputs, updates=list(updates))
    function.trust_input = True
    return function


def _case(tensors: Mapping[str, Any], updates: Sequence[tuple[Any, Any]] = ()) -> Case:
    return Case(_outputs(tensors, updates), lambda found: dict(zip(tensors, map(np.asarray, found), strict=True)))


def _training(loss: Any, updates: Sequence[tuple[Any, Any]], inputs: Mapping[str, Any]) -> Case:
    state = [variable for variable, _ in updates]
    firsts = [variable.get_value() for variable in state]
    case = _case({"loss": loss}, updates)

    def reset() -> None:
        for variable, first in zip(state, firsts, strict=True):
            variable.set_value(first)

    def again(others: Mapping[str, np.ndarray]) -> Any:
        for name, variable in inputs.items():
            variable.set_value(others[name])
        return case.call()

    return Case(case.call, case.values, reset, again=again)


def _adam(loss: Any, parameters: Sequence[Any]) -> list[tuple[Any, Any]]:
    one = np.float32(1)
    count = _shared(np.zeros((), np.float32), "count")
    updates = [(count, count + one)]
    first, second = (one - np.float32(beta) ** (count + one) for beta in (0.9, 0.999))
    for p, g in zip(parameters, pytensor.grad(loss, list(parameters)), strict=True):
        m, v = (_shared(np.zeros_like(p.get_value()), f"{p.name}_{slot}") for slot in "mv")
        next_m = np.float32(0.9) * m + np.float32(1 - 0.9) * g
        next_v = np.float32(0.999) * v + np.float32(1 - 0.999) * pt.sqr(g)
        rate = np.float32(RATE["adam"])
        moved = p - rate * (next_m / first) / (pt.sqrt(next_v / second) + np.float32(1e-8))
        updates += [(m, next_m), (v, next_v), (p, moved)]
    return updates


def seed(arrays: Arrays, sizes: Sizes) -> Case:
    x, y, w1, w2 = (_shared(arrays[n], n) for n in ("x", "y", "w1", "w2"))
    loss = pt.sum(pt.sqr(pt.maximum(x @ w1, np.float32(0)) @ w2 - y))
    gradients = pytensor.grad(loss, [w1, w2])
    updates = [(w, w - np.float32(RATE["seed"]) * g) for w, g in zip((w1, w2), gradients, strict=True)]
    return _training(loss, updates, {"x": x, "y": y})


def _cross_entropy(logits: Any, labels: Any) -> Any:
    picked = pt.special.log_softmax(logits, axis=-1)[pt.arange(labels.shape[0]), labels]
    return -pt.mean(picked)


def classifier(arrays: Arrays, sizes: Sizes) -> Case:
    x, labels = (_shared(arrays[n], n) for n in ("x", "labels"))
    layers = layers_of(arrays)
    if len({w.shape for w, _ in layers}) == 1:
        logits, parameters = _equal_layers(x, layers)
    else:
        parameters = [
            _shared(p, f"{kind}{i}") for i, layer in enumerate(layers) for kind, p in zip("wb", layer, strict=True)
        ]
        hidden = x
        for w, b in zip(parameters[:-2:2], parameters[1:-2:2], strict=True):
            hidden = pt.maximum(hidden @ w + b, np.float32(0))
        logits = hidden @ parameters[-2] + parameters[-1]
    loss = _cross_entropy(logits, labels)
    return _training(loss, _adam(loss, parameters), {"x": x, "labels": labels})


def _equal_layers(x: Any, layers: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[Any, list[Any]]:
    """Layers of one shape in one array, walked by ``scan``: a hundred written out take more memory to compile than a
    workstation has.
    """
    w, b = (_shared(np.stack(part), name) for part, name in zip(zip(*layers, strict=True), "wb", strict=True))
    hidden = pytensor.scan(
        lambda w, b, h: pt.maximum(h @ w + b, np.float32(0)), sequences=[w[:-1], b[:-1]], outputs_info=x,
        return_updates=False,
    )[-1]  # fmt: skip
    return hidden @ w[-1] + b[-1], [w, b]


def tiny(arrays: Arrays, sizes: Sizes, by_run: bool) -> Case:
    x = pt.vector("x", dtype="float32")
    w, b = (_shared(arrays[n], n) for n in ("w", "b"))
    function = pytensor.function([x], pytensor.Out(pt.tanh(x * w + b) * np.float32(2) - x, borrow=True))
    function.trust_input = True
    return Case(lambda: function(arrays["x"]), lambda y: {"y": y})


def _gradients(value: Any, wanted: Mapping[str, Any]) -> Case:
    gradients = pytensor.grad(value, list(wanted.values()))
    return _case({"value": value, **dict(zip(wanted, gradients, strict=True))})


def _gelu(u: Any) -> Any:
    inner = np.float32(math.sqrt(2 / math.pi)) * (u + np.float32(0.044715) * u * u * u)
    return np.float32(0.5) * u * (np.float32(1) + pt.tanh(inner))


def chain(arrays: Arrays, sizes: Sizes) -> Case:
    x, w = (_shared(arrays[n], n) for n in ("x", "w"))
    return _gradients(pt.mean(_gelu(x * w)), {"w": w})


def softmax(arrays: Arrays, sizes: Sizes) -> Case:
    logits, labels = (_shared(arrays[n], n) for n in ("logits", "labels"))
    return _gradients(_cross_entropy(logits, labels), {"logits": logits})


def _layer_norm(x: Any, scale: Any, bias: Any) -> Any:
    centred = x - pt.mean(x, axis=-1, keepdims=True)
    variance = pt.mean(pt.sqr(centred), axis=-1, keepdims=True)
    return centred / pt.sqrt(variance + np.float32(1e-5)) * scale + bias


def norm(arrays: Arrays, sizes: Sizes) -> Case:
    x, scale, bias, t = (_shared(arrays[n], n) for n in ("x", "scale", "bias", "t"))
    return _gradients(pt.sum(_layer_norm(x, scale, bias) * t), {"x": x, "scale": scale, "bias": bias})


def attn(arrays: Arrays, sizes: Sizes) -> Case:
    x, target = (_shared(arrays[n], n) for n in ("x", "target"))
    p = {n: _shared(arrays[n], n) for n in ATTN_PARAMETERS}
    heads, length, width = sizes["heads"], sizes["length"], sizes["width"]
    each = width // heads

    qkv = _layer_norm(x, p["norm1_w"], p["norm1_b"]) @ p["qkv_w"] + p["qkv_b"]
    qkv = qkv.reshape((x.shape[0], length, 3, heads, each)).transpose(2, 0, 3, 1, 4)
    q, k, v = qkv[0], qkv[1], qkv[2]
    scores = q @ k.swapaxes(-1, -2) * np.float32(1 / math.sqrt(each))
    mixed = (pt.special.softmax(scores, axis=-1) @ v).transpose(0, 2, 1, 3).reshape((x.shape[0], length, width))
    x1 = x + mixed @ p["out_w"] + p["out_b"]
    wide = _layer_norm(x1, p["norm2_w"], p["norm2_b"]) @ p["up_w"] + p["up_b"]
    y = x1 + _gelu(wide) @ p["down_w"] + p["down_b"]
    loss = pt.mean(pt.sqr(y - target))
    parameters = list(p.values())
    return _training(loss, _adam(loss, parameters), {"x": x, "target": target})


def reduce(arrays: Arrays, sizes: Sizes, sums: Mapping[str, int | None]) -> Case:
    x = _shared(arrays["x"], "x")
    return _case({name: pt.sum(x, axis=axis) for name, axis in sums.items()})
