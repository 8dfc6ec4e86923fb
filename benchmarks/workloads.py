"""What is timed: the arrays each workload starts from, the least work it can be, and the goal set for it.

Every side gets the same arrays. Floors count what any program must do: the floating-point operations of the matrix
products (2 for a multiplication with its addition; elementwise work is left out), and every byte of input, parameter,
optimiser slot and output once for each time it must be read or written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray
Arrays = dict[str, Array]
Sizes = Mapping[str, int]
SEED = 0


@dataclass(frozen=True)
class Goal:
    """``value``: at most this many times the fastest of the sides in ``against`` (all peers when it is empty)."""

    value: float
    against: tuple[str, ...] = ()


@dataclass(frozen=True)
class Workload:
    """``case`` names the function of a side's module that makes it, called with arrays, sizes and ``options``.
    ``draw(sizes, rng)`` makes the arrays; ``work(sizes)`` is (operations, bytes) of the floor; ``terms(sizes)`` is
    the length of the longest sum, from which the tolerance of the value check comes; ``steps`` are run in the check.
    ``small`` replaces ``sizes`` in tests.
    """

    name: str
    text: str
    goal: Goal
    case: str
    sizes: Sizes
    small: Sizes
    draw: Callable[[Sizes, np.random.Generator], Arrays]
    work: Callable[[Sizes], tuple[float, float]]
    terms: Callable[[Sizes], int]
    steps: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)

    def arrays(self, sizes: Sizes, dtype: str = "float32") -> Arrays:
        """The arrays at these sizes; every dtype holds the same float32 numbers."""
        drawn = self.draw(sizes, np.random.default_rng(SEED))
        return {k: _aligned(v if v.dtype.kind == "i" else v.astype(dtype)) for k, v in drawn.items()}


def _aligned(array: Array) -> Array:
    """A copy that starts at a cache line, as PyTorch's and JAX's own arrays do."""
    room = np.empty(array.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    made = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    made[...] = array
    return made


def layer_shapes(s: Sizes) -> list[tuple[int, int]]:
    """(inputs, outputs) of each layer of a classifier."""
    inner = [s["hidden"]] * (s["layers"] - 1)
    return list(zip([s["inputs"], *inner], [*inner, s["classes"]], strict=True))


def layers_of(arrays: Arrays) -> list[tuple[Array, Array]]:
    """Weight and bias of each layer, from the arrays of ``classifier``."""
    return [(arrays[f"w{i}"], arrays[f"b{i}"]) for i in range(len(arrays) // 2 - 1)]


def _normal(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Array:
    return rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)


def _seed(s: Sizes, rng: np.random.Generator) -> Arrays:
    return {
        "x": _normal(rng, s["batch"], s["inputs"]),
        "y": _normal(rng, s["batch"], s["outputs"]),
        "w1": _normal(rng, s["inputs"], s["hidden"]),
        "w2": _normal(rng, s["hidden"], s["outputs"]),
    }


def _seed_work(s: Sizes) -> tuple[float, float]:
    n, i, h, o = s["batch"], s["inputs"], s["hidden"], s["outputs"]
    products = 2 * n * i * h + 2 * n * h * o  # forward
    products += 2 * n * h * o + 2 * n * o * h + 2 * n * i * h  # gradients of w2, of the hidden layer, of w1
    return products, 4 * (n * i + n * o + 2 * (i * h + h * o))  # x, y read; weights read and written


def _classifier(s: Sizes, rng: np.random.Generator) -> Arrays:
    arrays = {
        "x": _normal(rng, s["batch"], s["inputs"]),
        "labels": rng.integers(0, s["classes"], s["batch"]),
    }
    for i, (inputs, outputs) in enumerate(layer_shapes(s)):
        arrays[f"w{i}"] = _normal(rng, inputs, outputs, scale=math.sqrt(2 / inputs))
        arrays[f"b{i}"] = _normal(rng, outputs, scale=0.01)
    return arrays


def _classifier_work(s: Sizes) -> tuple[float, float]:
    products = [2 * s["batch"] * i * o for i, o in layer_shapes(s)]
    # Each layer has one product forward and two backward, but nobody asks for the gradient of x.
    operations = 3 * sum(products) - products[0]
    parameters = sum(i * o + o for i, o in layer_shapes(s))
    # Weights and Adam's two moments are read and written; x and the labels (int64) are read.
    return operations, 4 * 6 * parameters + 4 * s["batch"] * s["inputs"] + 8 * s["batch"]


def _tiny(s: Sizes, rng: np.random.Generator) -> Arrays:
    return {k: _normal(rng, s["n"]) for k in ("x", "w", "b")}


def _chain(s: Sizes, rng: np.random.Generator) -> Arrays:
    return {k: _normal(rng, s["n"]) for k in ("x", "w")}


def _softmax(s: Sizes, rng: np.random.Generator) -> Arrays:
    return {
        "logits": _normal(rng, s["rows"], s["classes"], scale=2.0),
        "labels": rng.integers(0, s["classes"], s["rows"]),
    }


def _norm(s: Sizes, rng: np.random.Generator) -> Arrays:
    shape = s["rows"], s["width"]
    return {
        "x": _normal(rng, *shape, scale=2.0) + np.float32(0.5),
        "t": _normal(rng, *shape),
        "scale": 1 + _normal(rng, s["width"], scale=0.1),
        "bias": _normal(rng, s["width"], scale=0.1),
    }


def _attn(s: Sizes, rng: np.random.Generator) -> Arrays:
    width, wide = s["width"], s["width"] * s["factor"]
    arrays = {k: _normal(rng, s["batch"], s["length"], width) for k in ("x", "target")}
    for name, inputs, outputs in (
        ("qkv", width, 3 * width),
        ("out", width, width),
        ("up", width, wide),
        ("down", wide, width),
    ):
        arrays[f"{name}_w"] = _normal(rng, inputs, outputs, scale=inputs**-0.5)
        arrays[f"{name}_b"] = _normal(rng, outputs, scale=0.01)
    for name in ("norm1", "norm2"):
        arrays[f"{name}_w"] = 1 + _normal(rng, width, scale=0.1)
        arrays[f"{name}_b"] = _normal(rng, width, scale=0.1)
    return arrays


ATTN_PARAMETERS = tuple(f"{n}_{p}" for n in ("qkv", "out", "up", "down", "norm1", "norm2") for p in "wb")


def _attn_work(s: Sizes) -> tuple[float, float]:
    width, tokens = s["width"], s["batch"] * s["length"]
    dense = 2 * tokens * width * width * (3 + 1 + 2 * s["factor"])  # queries, keys and values; output; the MLP
    scores = 2 * (2 * tokens * s["length"] * width)  # scores, and their product with the values
    parameters = width * width * (4 + 2 * s["factor"]) + width * (4 + s["factor"] + 1 + 4)
    # Two products backward for each forward: even the first has a gradient to pass on, to the norm before it.
    return 3 * (dense + scores), 4 * (6 * parameters + 2 * tokens * width)


def _matrix(s: Sizes, rng: np.random.Generator) -> Arrays:
    return {"x": _normal(rng, s["rows"], s["columns"])}


def _matrix_work(s: Sizes) -> tuple[float, float]:
    return 0.0, 4 * s["rows"] * s["columns"]  # the sums themselves are few


def _elements(s: Sizes, rng: np.random.Generator) -> Arrays:
    """x where every function has its usual range, and positive bases with exponents for those that need them."""
    drawn = {"x": (-2.0, 2.0), "base": (0.1, 4.0), "exponent": (0.0, 3.0)}
    return {name: rng.uniform(low, high, s["n"]).astype(np.float32) for name, (low, high) in drawn.items()}


def _elementwise_row(function: str) -> Workload:
    operands = {"log": ("base",), "pow": ("base", "exponent")}.get(function, ("x",))
    return Workload(
        f"vmath-{function}", f"{function} of every element", Goal(1.3, ("torch eager",)), "elementwise",
        {"n": 20480}, {"n": 1000}, _elements, lambda s: (0.0, 0.0), lambda s: 1,
        options={"function": function, "operands": operands},
    )  # fmt: skip


def _tiny_row(name: str, text: str, goal: float, by_run: bool) -> Workload:
    return Workload(
        name, text, Goal(goal, ("numpy",)), "tiny", {"n": 4}, {"n": 4}, _tiny, lambda s: (0.0, 0.0), lambda s: 1,
        options={"by_run": by_run},
    )  # fmt: skip


def _reduce_row(name: str, text: str, goal: float, **sums: int | None) -> Workload:
    return Workload(
        name, text, Goal(goal), "reduce", {"rows": 4096, "columns": 4096}, {"rows": 70, "columns": 33},
        _matrix, _matrix_work, lambda s: s["rows"] * s["columns"], options={"sums": sums},
    )  # fmt: skip


_ALL = (
    Workload(
        "seed", "32x1000x100x2, ReLU, sum of squares, SGD", Goal(0.45), "seed",
        {"batch": 32, "inputs": 1000, "hidden": 100, "outputs": 2},
        {"batch": 8, "inputs": 50, "hidden": 20, "outputs": 2},
        _seed, _seed_work, lambda s: s["inputs"], steps=5,
    ),
    Workload(
        "mlp", "784-512-512-10 with biases, batch 256, cross entropy, Adam", Goal(0.75), "classifier",
        {"batch": 256, "inputs": 784, "hidden": 512, "classes": 10, "layers": 3},
        {"batch": 12, "inputs": 20, "hidden": 16, "classes": 5, "layers": 3},
        _classifier, _classifier_work, lambda s: s["inputs"], steps=5,
    ),
    Workload(
        "deep", "100 layers of 64x64 with biases, batch 16, ReLU, cross entropy, Adam", Goal(0.35), "classifier",
        {"batch": 16, "inputs": 64, "hidden": 64, "classes": 64, "layers": 100},
        {"batch": 4, "inputs": 8, "hidden": 8, "classes": 8, "layers": 6},
        _classifier, _classifier_work, lambda s: s["hidden"] * s["layers"], steps=3,
    ),
    _tiny_row("tiny-run", "tanh(x*w+b)*2-x on 4 elements, NumPy in and out, Session.run", 1.2, by_run=True),
    _tiny_row("tiny-step", "the same, a compiled step called directly", 0.5, by_run=False),
    Workload(
        "chain", "tanh-GELU of x*w, 4 Mi elements, mean, gradient for w", Goal(0.33), "chain",
        {"n": 2**22}, {"n": 5000},
        _chain, lambda s: (0.0, 4 * 3 * s["n"]), lambda s: s["n"],  # x, w read; the gradient written
    ),
    Workload(
        "softmax", "cross entropy on 8192x1000 logits, value and gradient", Goal(0.45), "softmax",
        {"rows": 8192, "classes": 1000}, {"rows": 30, "classes": 17}, _softmax,
        lambda s: (0.0, 2 * 4 * s["rows"] * s["classes"] + 8 * s["rows"]),  # logits, labels read; gradient written
        lambda s: s["rows"] + s["classes"],
    ),
    Workload(
        "norm", "layer norm of 4096x1024 times a tensor, summed; gradients for x, scale, bias", Goal(0.5), "norm",
        {"rows": 4096, "width": 1024}, {"rows": 30, "width": 24}, _norm,
        lambda s: (0.0, 3 * 4 * s["rows"] * s["width"] + 4 * 4 * s["width"]),  # x, t read; the gradient for x written
        lambda s: s["rows"] * s["width"],
    ),
    Workload(
        "attn", "one transformer block (8x128x256, 4 heads, MLP x4), mean squared error, Adam", Goal(0.8), "attn",
        {"batch": 8, "length": 128, "width": 256, "heads": 4, "factor": 4},
        {"batch": 2, "length": 6, "width": 8, "heads": 2, "factor": 4},
        _attn, _attn_work, lambda s: s["width"] * s["factor"], steps=3,
    ),
    _reduce_row("reduce", "4096x4096: sums over axis 0, axis 1 and all, together", 0.45, columns=0, rows=1, all=None),
    _reduce_row("reduce-0", "4096x4096: sums over axis 0 alone", 1.05, columns=0),
    _reduce_row("reduce-1", "4096x4096: sums over axis 1 alone", 1.05, rows=1),
    _reduce_row("reduce-all", "4096x4096: the sum of all alone", 1.05, all=None),
)  # fmt: skip
WORKLOADS: dict[str, Workload] = {w.name: w for w in _ALL}
ELEMENTWISE: dict[str, Workload] = {  # by function; `benchmarks.vmath` times them
    f: _elementwise_row(f) for f in ("exp", "log", "tanh", "sigmoid", "erf", "sin", "cos", "pow")
}
BY_NAME: dict[str, Workload] = {w.name: w for w in (*_ALL, *ELEMENTWISE.values())}
RATE = {"seed": 1e-6, "adam": 1e-3}
