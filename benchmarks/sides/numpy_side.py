"""NumPy by hand: derivatives written out, arrays made once and written with ``out=``, updates in place.

The same code in float64 gives the values that all sides are checked against.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import special

from benchmarks.sides import Case
from benchmarks.workloads import ATTN_PARAMETERS, RATE, Array, Arrays, Sizes, layers_of

EPSILON = 1e-5
GELU = math.sqrt(2 / math.pi)


def start(threads: int, variant: str) -> None:
    """NumPy's BLAS reads its threads from the environment, which the worker has set."""


def versions() -> dict[str, str]:
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {"python": sys.version.split()[0], "numpy": np.__version__, "blas": f"{blas['name']} {blas['version']}"}


class _Adam:
    """All parameters in one array, so that an update is a dozen calls, however many they are."""

    def __init__(self, parameters: Mapping[str, Array]) -> None:
        size, dtype = sum(p.size for p in parameters.values()), next(iter(parameters.values())).dtype
        self.flat, self.flat_gradient, self.m, self.v, self.scratch = (np.zeros(size, dtype) for _ in range(5))
        self.parameters: dict[str, Array] = {}
        self.gradients: dict[str, Array] = {}
        place = 0
        for name, value in parameters.items():
            part = slice(place, place + value.size)
            self.parameters[name] = self.flat[part].reshape(value.shape)
            self.gradients[name] = self.flat_gradient[part].reshape(value.shape)
            self.parameters[name][...] = value
            place += value.size
        self._first = self.flat.copy()
        self.reset()

    def reset(self) -> None:
        self.flat[...] = self._first
        self.m.fill(0)
        self.v.fill(0)
        self.steps = 0

    def step(self) -> None:
        self.steps += 1
        first, second = 1 - 0.9**self.steps, math.sqrt(1 - 0.999**self.steps)
        g, m, v, scratch = self.flat_gradient, self.m, self.v, self.scratch
        m *= 0.9
        m += np.multiply(g, 1 - 0.9, out=scratch)
        v *= 0.999
        np.square(g, out=g)
        g *= 1 - 0.999
        v += g
        np.sqrt(v, out=scratch)
        scratch += 1e-8 * second
        np.divide(m, scratch, out=scratch)
        scratch *= RATE["adam"] * second / first
        self.flat -= scratch


def seed(arrays: Arrays, sizes: Sizes) -> Case:
    x, y = arrays["x"], arrays["y"]
    firsts = arrays["w1"], arrays["w2"]
    w1, w2 = (w.copy() for w in firsts)
    hidden, active, grad_hidden = (np.empty((len(x), w1.shape[1]), x.dtype) for _ in range(3))
    error, grad_w1, grad_w2 = np.empty_like(y), np.empty_like(w1), np.empty_like(w2)

    def call() -> float:
        np.matmul(x, w1, out=hidden)
        np.maximum(hidden, 0, out=active)
        np.matmul(active, w2, out=error)
        np.subtract(error, y, out=error)
        loss = np.vdot(error, error)
        np.multiply(error, 2 * RATE["seed"], out=error)  # the rate here, where there are fewest elements
        np.matmul(error, w2.T, out=grad_hidden)
        np.multiply(grad_hidden, hidden > 0, out=grad_hidden)
        np.subtract(w2, np.matmul(active.T, error, out=grad_w2), out=w2)
        np.subtract(w1, np.matmul(x.T, grad_hidden, out=grad_w1), out=w1)
        return loss

    def reset() -> None:
        for w, first in zip((w1, w2), firsts, strict=True):
            w[...] = first

    return Case(call, lambda loss: {"loss": loss}, reset)


def _cross_entropy(logits: Array, labels: Array, rows: Array, gradient: Array) -> float:
    """The mean loss; ``logits`` are overwritten, ``gradient`` may be the same array."""
    logits -= logits.max(axis=1, keepdims=True)
    wanted = logits[rows, labels]
    np.exp(logits, out=gradient)
    sums = gradient.sum(axis=1, keepdims=True)
    loss = np.log(sums).mean() - wanted.mean()
    np.divide(gradient, sums * len(rows), out=gradient)
    gradient[rows, labels] -= gradient.dtype.type(1 / len(rows))
    return loss


def classifier(arrays: Arrays, sizes: Sizes) -> Case:
    x, labels = arrays["x"], arrays["labels"]
    count = len(layers_of(arrays))
    adam = _Adam({k: v for k, v in arrays.items() if k not in ("x", "labels")})
    layers, gradients = layers_of({**arrays, **adam.parameters}), layers_of({**arrays, **adam.gradients})
    values = [np.empty((len(x), b.size), x.dtype) for _, b in layers]
    flows = [np.empty_like(v) for v in values]
    rows = np.arange(len(x))

    def call() -> float:
        hidden = x
        for i, (w, b) in enumerate(layers):
            np.matmul(hidden, w, out=values[i])
            values[i] += b
            if i + 1 < count:
                np.maximum(values[i], 0, out=values[i])
            hidden = values[i]
        loss = _cross_entropy(values[-1], labels, rows, flows[-1])
        for i in reversed(range(count)):
            grad_w, grad_b = gradients[i]
            np.matmul((values[i - 1] if i else x).T, flows[i], out=grad_w)
            flows[i].sum(axis=0, out=grad_b)
            if i:
                np.matmul(flows[i], layers[i][0].T, out=flows[i - 1])
                np.multiply(flows[i - 1], values[i - 1] > 0, out=flows[i - 1])
        adam.step()
        return loss

    return Case(call, lambda loss: {"loss": loss}, adam.reset)


def tiny(arrays: Arrays, sizes: Sizes, by_run: bool) -> Case:
    x, w, b = arrays["x"], arrays["w"], arrays["b"]
    return Case(lambda: np.tanh(x * w + b) * 2 - x, lambda y: {"y": y})


def _gelu(u: Array, gate: Array, value: Array, slope: Array) -> None:
    """``value`` = u * gate, and ``slope``, its derivative; ``gate`` is (1 + tanh(inner)) / 2. All are written."""
    np.square(u, out=slope)
    np.multiply(slope, GELU * 0.044715, out=gate)
    gate += GELU
    gate *= u
    np.tanh(gate, out=gate)
    # (1 - tanh^2) / 2 * u * inner', where inner' = sqrt(2 / pi) * (1 + 3 * 0.044715 * u^2)
    slope *= 3 * 0.044715 * GELU / 2
    slope += GELU / 2
    slope *= u
    np.square(gate, out=value)
    np.subtract(1, value, out=value)
    slope *= value
    gate += 1
    gate *= 0.5
    slope += gate
    np.multiply(u, gate, out=value)


def chain(arrays: Arrays, sizes: Sizes) -> Case:
    x, w = arrays["x"], arrays["w"]
    block = 2**16  # what four arrays of a block take stays in the cache
    u, gate, value, slope = (np.empty(min(block, x.size), x.dtype) for _ in range(4))

    def call() -> tuple[float, Array]:
        gradient, total = np.empty_like(x), 0.0
        for start in range(0, x.size, block):
            part = slice(start, min(start + block, x.size))
            n = part.stop - part.start
            np.multiply(x[part], w[part], out=u[:n])
            _gelu(u[:n], gate[:n], value[:n], slope[:n])
            total += float(value[:n].sum())
            slope[:n] *= 1 / x.size
            np.multiply(slope[:n], x[part], out=gradient[part])
        return total / x.size, gradient

    return Case(call, lambda found: {"value": np.asarray(found[0]), "w": found[1]})


def softmax(arrays: Arrays, sizes: Sizes) -> Case:
    logits, labels = arrays["logits"], arrays["labels"]
    rows = np.arange(len(logits))

    def call() -> tuple[float, Array]:
        gradient = logits.copy()
        return _cross_entropy(gradient, labels, rows, gradient), gradient

    return Case(call, lambda found: {"value": found[0], "logits": found[1]})


class _LayerNorm:
    """Forward keeps what backward needs: the normalised input and the reciprocal deviation."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.normalised, self.scratch = np.empty(shape, dtype), np.empty(shape, dtype)

    def forward(self, x: Array, scale: Array, bias: Array, out: Array) -> None:
        np.subtract(x, x.mean(axis=-1, keepdims=True), out=self.normalised)
        variance = np.vecdot(self.normalised, self.normalised)[..., None] / x.shape[-1]
        self.rstd = 1 / np.sqrt(variance + EPSILON)
        self.normalised *= self.rstd
        np.multiply(self.normalised, scale, out=out)
        out += bias

    def backward(self, flow: Array, scale: Array, grad_scale: Array, grad_bias: Array, out: Array) -> None:
        """``out``, which may be ``flow``, becomes the gradient for x."""
        width = flow.shape[-1]
        flow.reshape(-1, width).sum(axis=0, out=grad_bias)
        np.multiply(flow, self.normalised, out=self.scratch)
        self.scratch.reshape(-1, width).sum(axis=0, out=grad_scale)
        np.multiply(flow, scale, out=out)
        mean = out.mean(axis=-1, keepdims=True)
        slope = np.vecdot(out, self.normalised)[..., None] / width
        out -= mean
        out -= np.multiply(self.normalised, slope, out=self.scratch)
        out *= self.rstd


def norm(arrays: Arrays, sizes: Sizes) -> Case:
    x, t, scale, bias = (arrays[n] for n in ("x", "t", "scale", "bias"))
    layer, value = _LayerNorm(x.shape, x.dtype), np.empty_like(x)

    def call() -> tuple[Array, ...]:
        layer.forward(x, scale, bias, value)
        total = np.vdot(value, t)
        grad_x, grad_scale, grad_bias = np.empty_like(x), np.empty_like(scale), np.empty_like(bias)
        layer.backward(t, scale, grad_scale, grad_bias, grad_x)
        return total, grad_x, grad_scale, grad_bias

    return Case(call, lambda found: dict(zip(("value", "x", "scale", "bias"), found, strict=True)))


def attn(arrays: Arrays, sizes: Sizes) -> Case:
    x, target = arrays["x"], arrays["target"]
    batch, length, width = x.shape
    heads, each, tokens = sizes["heads"], width // sizes["heads"], batch * length
    adam = _Adam({k: arrays[k] for k in ATTN_PARAMETERS})
    p, g = adam.parameters, adam.gradients
    norms = [_LayerNorm((tokens, width), x.dtype) for _ in range(2)]
    names = ("normed1", "mixed", "x1", "normed2", "y", "flow")
    normed1, mixed, x1, normed2, y, flow = (np.empty((tokens, width), x.dtype) for _ in names)
    qkv, grad_qkv = (np.empty((tokens, 3 * width), x.dtype) for _ in range(2))
    u, gate, wide, slope = (np.empty((tokens, width * sizes["factor"]), x.dtype) for _ in range(4))
    weights, grad_weights = (np.empty((batch, heads, length, length), x.dtype) for _ in range(2))
    rows, wanted = x.reshape(tokens, width), target.reshape(tokens, width)

    def split(packed: Array) -> Array:
        """(tokens, 3 * width) as three views of (batch, heads, length, each)."""
        return packed.reshape(batch, length, 3, heads, each).transpose(2, 0, 3, 1, 4)

    def joined(packed: Array) -> Array:
        return packed.reshape(batch, length, heads, each).transpose(0, 2, 1, 3)

    def dense(name: str, inputs: Array, out: Array) -> None:
        np.matmul(inputs, p[f"{name}_w"], out=out)
        out += p[f"{name}_b"]

    def dense_back(name: str, inputs: Array, gradient: Array, out: Array) -> None:
        np.matmul(inputs.T, gradient, out=g[f"{name}_w"])
        gradient.sum(axis=0, out=g[f"{name}_b"])
        np.matmul(gradient, p[f"{name}_w"].T, out=out)

    def forward() -> float:
        norms[0].forward(rows, p["norm1_w"], p["norm1_b"], normed1)
        dense("qkv", normed1, qkv)
        q, k, v = split(qkv)
        np.matmul(q, k.swapaxes(-1, -2), out=weights)
        np.multiply(weights, 1 / math.sqrt(each), out=weights)
        np.subtract(weights, weights.max(axis=-1, keepdims=True), out=weights)
        np.exp(weights, out=weights)
        np.divide(weights, weights.sum(axis=-1, keepdims=True), out=weights)
        joined(mixed)[...] = weights @ v
        dense("out", mixed, x1)
        np.add(x1, rows, out=x1)
        norms[1].forward(x1, p["norm2_w"], p["norm2_b"], normed2)
        dense("up", normed2, u)
        _gelu(u, gate, wide, slope)
        dense("down", wide, y)
        np.add(y, x1, out=y)
        np.subtract(y, wanted, out=y)
        return np.vdot(y, y) / y.size

    def backward() -> None:
        np.multiply(y, 2 / y.size, out=y)
        dense_back("down", wide, y, gate)
        np.multiply(gate, slope, out=gate)
        dense_back("up", normed2, gate, flow)
        norms[1].backward(flow, p["norm2_w"], g["norm2_w"], g["norm2_b"], flow)
        np.add(flow, y, out=flow)  # what flows into x1
        dense_back("out", mixed, flow, y)
        (q, k, v), (grad_q, grad_k, grad_v), grad_mixed = split(qkv), split(grad_qkv), joined(y)
        grad_v[...] = weights.swapaxes(-1, -2) @ grad_mixed
        np.matmul(grad_mixed, v.swapaxes(-1, -2), out=grad_weights)
        inner = np.vecdot(grad_weights, weights)[..., None]
        np.subtract(grad_weights, inner, out=grad_weights)
        np.multiply(grad_weights, weights, out=grad_weights)
        np.multiply(grad_weights, 1 / math.sqrt(each), out=grad_weights)
        grad_q[...] = grad_weights @ k
        grad_k[...] = grad_weights.swapaxes(-1, -2) @ q
        dense_back("qkv", normed1, grad_qkv, flow)
        norms[0].backward(flow, p["norm1_w"], g["norm1_w"], g["norm1_b"], flow)

    def call() -> float:
        loss = forward()
        backward()
        adam.step()
        return loss

    return Case(call, lambda loss: {"loss": loss}, adam.reset)


def reduce(arrays: Arrays, sizes: Sizes, sums: Mapping[str, int | None]) -> Case:
    x = arrays["x"]
    return Case(lambda: {name: x.sum(axis=axis) for name, axis in sums.items()}, lambda found: found)


def elementwise(arrays: Arrays, sizes: Sizes, function: str, operands: Sequence[str]) -> Case:
    """Two of the functions are SciPy's, which are NumPy's ufuncs too."""
    ufunc = {"sigmoid": special.expit, "erf": special.erf, "pow": np.power}.get(function) or getattr(np, function)
    given = [arrays[n] for n in operands]
    out = np.empty_like(given[0])
    return Case(lambda: ufunc(*given, out=out), lambda found: {"y": found})
