"""JAX: one jitted function a step, parameters and optimiser slots donated, ready before a call ends."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from benchmarks.sides import Case
from benchmarks.workloads import ATTN_PARAMETERS, RATE, Arrays, Sizes, layers_of


def start(threads: int, variant: str) -> None:
    """XLA takes the cores that the process has, which the worker has set."""


def versions() -> dict[str, str]:
    return {"python": sys.version.split()[0], "jax": jax.__version__, "jaxlib": jaxlib.__version__}


def _arrays(found: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in found.items()}


def _on_device(arrays: Arrays, names: Sequence[str]) -> list[jax.Array]:
    """Arrays of JAX's own; labels become int32, its default."""
    return [jnp.array(arrays[n]) for n in names]


def _sgd(parameters: Any, gradients: Any, slots: Any) -> tuple[Any, Any]:
    return jax.tree.map(lambda p, g: p - RATE["seed"] * g, parameters, gradients), slots


def _adam(parameters: Any, gradients: Any, slots: Any) -> tuple[Any, Any]:
    count, m, v = slots
    count = count + 1
    m = jax.tree.map(lambda m, g: 0.9 * m + (1 - 0.9) * g, m, gradients)
    v = jax.tree.map(lambda v, g: 0.999 * v + (1 - 0.999) * jnp.square(g), v, gradients)
    first, second = 1 - 0.9**count, 1 - 0.999**count
    parameters = jax.tree.map(
        lambda p, m, v: p - RATE["adam"] * (m / first) / (jnp.sqrt(v / second) + 1e-8), parameters, m, v
    )
    return parameters, (count, m, v)


def _training(
    parameters: Callable[[], Any], loss_of: Callable[..., jax.Array], arrays: Arrays, names: Sequence[str], adam: bool
) -> Case:
    """``parameters`` makes them anew: donated arrays are gone after the call."""
    inputs = _on_device(arrays, names)
    update = _adam if adam else _sgd

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(parameters: Any, slots: Any, *batch: jax.Array) -> tuple[Any, Any, jax.Array]:
        loss, gradients = jax.value_and_grad(loss_of)(parameters, *batch)
        return *update(parameters, gradients, slots), loss

    state: list[Any] = []

    def reset() -> None:
        first = parameters()
        slots = (jnp.zeros(()), *(jax.tree.map(jnp.zeros_like, first) for _ in range(2))) if adam else ()
        state[:] = [first, slots]

    def run(*batch: jax.Array) -> jax.Array:
        *state[:], loss = step(*state, *batch)
        return loss.block_until_ready()

    def temporaries() -> Mapping[str, int]:
        return {"temporaries": step.lower(*state, *inputs).compile().memory_analysis().temp_size_in_bytes}

    reset()
    return Case(
        lambda: run(*inputs),
        lambda loss: _arrays({"loss": loss}),
        reset,
        again=lambda others: run(*_on_device(dict(others), names)),
        facts=temporaries,
    )


def seed(arrays: Arrays, sizes: Sizes) -> Case:
    def loss_of(p: Sequence[jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(jax.nn.relu(x @ p[0]) @ p[1] - y))

    return _training(lambda: _on_device(arrays, ("w1", "w2")), loss_of, arrays, ("x", "y"), adam=False)


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    wanted = jnp.take_along_axis(logits, labels[:, None], axis=-1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - wanted)


def classifier(arrays: Arrays, sizes: Sizes) -> Case:
    layers = layers_of(arrays)
    if len({w.shape for w, _ in layers}) == 1:
        return _equal_layers(arrays)

    def loss_of(layers: Sequence[tuple[jax.Array, jax.Array]], x: jax.Array, labels: jax.Array) -> jax.Array:
        *hidden, (last_w, last_b) = layers
        for w, b in hidden:
            x = jax.nn.relu(x @ w + b)
        return _cross_entropy(x @ last_w + last_b, labels)

    def parameters() -> list[tuple[jax.Array, jax.Array]]:
        return [(jnp.array(w), jnp.array(b)) for w, b in layers]

    return _training(parameters, loss_of, arrays, ("x", "labels"), adam=True)


def _equal_layers(arrays: Arrays) -> Case:
    """Layers of one shape in one array, walked by ``scan``: half the time of a hundred written out."""
    weights, biases = (np.stack(part) for part in zip(*layers_of(arrays), strict=True))

    def loss_of(p: tuple[jax.Array, jax.Array], x: jax.Array, labels: jax.Array) -> jax.Array:
        w, b = p
        x, _ = jax.lax.scan(lambda h, layer: (jax.nn.relu(h @ layer[0] + layer[1]), None), x, (w[:-1], b[:-1]))
        return _cross_entropy(x @ w[-1] + b[-1], labels)

    return _training(lambda: (jnp.array(weights), jnp.array(biases)), loss_of, arrays, ("x", "labels"), adam=True)


def tiny(arrays: Arrays, sizes: Sizes, by_run: bool) -> Case:
    w, b = _on_device(arrays, ("w", "b"))
    function = jax.jit(lambda x, w, b: jnp.tanh(x * w + b) * 2 - x)
    x = arrays["x"]
    return Case(lambda: np.asarray(function(x, w, b)), lambda y: {"y": y})


def _gradients(
    function: Callable[..., jax.Array], arrays: Arrays, wanted: Sequence[str], others: Sequence[str]
) -> Case:
    inputs = _on_device(arrays, (*wanted, *others))
    both = jax.jit(jax.value_and_grad(function, argnums=tuple(range(len(wanted)))))

    def values(found: Any) -> dict[str, np.ndarray]:
        value, gradients = found
        return _arrays(dict(zip(("value", *wanted), (value, *gradients), strict=True)))

    return Case(lambda: jax.block_until_ready(both(*inputs)), values)


def chain(arrays: Arrays, sizes: Sizes) -> Case:
    return _gradients(lambda w, x: jnp.mean(jax.nn.gelu(x * w, approximate=True)), arrays, ["w"], ["x"])


def softmax(arrays: Arrays, sizes: Sizes) -> Case:
    return _gradients(_cross_entropy, arrays, ["logits"], ["labels"])


def _layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array) -> jax.Array:
    return jax.nn.standardize(x, axis=-1, epsilon=1e-5) * scale + bias


def norm(arrays: Arrays, sizes: Sizes) -> Case:
    def value(x: jax.Array, scale: jax.Array, bias: jax.Array, t: jax.Array) -> jax.Array:
        return jnp.sum(_layer_norm(x, scale, bias) * t)

    return _gradients(value, arrays, ["x", "scale", "bias"], ["t"])


def attn(arrays: Arrays, sizes: Sizes) -> Case:
    heads, width = sizes["heads"], sizes["width"]

    def loss_of(p: Mapping[str, jax.Array], x: jax.Array, target: jax.Array) -> jax.Array:
        batch, length, _ = x.shape
        qkv = _layer_norm(x, p["norm1_w"], p["norm1_b"]) @ p["qkv_w"] + p["qkv_b"]
        q, k, v = qkv.reshape(batch, length, 3, heads, width // heads).transpose(2, 0, 3, 1, 4)
        weights = jax.nn.softmax(q @ k.mT * (1 / math.sqrt(width // heads)), axis=-1)
        mixed = (weights @ v).transpose(0, 2, 1, 3).reshape(x.shape)
        x = x + mixed @ p["out_w"] + p["out_b"]
        wide = _layer_norm(x, p["norm2_w"], p["norm2_b"]) @ p["up_w"] + p["up_b"]
        y = x + jax.nn.gelu(wide, approximate=True) @ p["down_w"] + p["down_b"]
        return jnp.mean(jnp.square(y - target))

    def parameters() -> dict[str, jax.Array]:
        return dict(zip(ATTN_PARAMETERS, _on_device(arrays, ATTN_PARAMETERS), strict=True))

    return _training(parameters, loss_of, arrays, ("x", "target"), adam=True)


def reduce(arrays: Arrays, sizes: Sizes, sums: Mapping[str, int | None]) -> Case:
    (x,) = _on_device(arrays, ("x",))
    function = jax.jit(lambda x: {name: x.sum(axis=axis) for name, axis in sums.items()})
    return Case(lambda: jax.block_until_ready(function(x)), _arrays)


def elementwise(arrays: Arrays, sizes: Sizes, function: str, operands: Sequence[str]) -> Case:
    jax.config.update("jax_enable_x64", arrays[operands[0]].dtype == np.float64)
    given = _on_device(arrays, operands)
    own = {"sigmoid": jax.nn.sigmoid, "erf": jax.scipy.special.erf, "pow": jnp.power}
    call = jax.jit(own.get(function) or getattr(jnp, function))
    return Case(lambda: jax.block_until_ready(call(*given)), lambda found: {"y": np.asarray(found)})
