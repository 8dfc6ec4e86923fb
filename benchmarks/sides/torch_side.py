"""PyTorch, eager and compiled: tensors made once from the arrays, gradients set to None, ``Adam(fused=True)``, which on
the CPU is the fastest of its kinds.

Compiled, a value and its gradients are one function, ``torch.compile(torch.func.grad_and_value(...))``: on small
networks it takes two thirds of the time of a compiled loss followed by ``backward()``. SGD is compiled with it. The
transformer block is a compiled loss and ``backward()``, which keeps PyTorch's attention kernel and is the faster there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from benchmarks.sides import Case
from benchmarks.workloads import ATTN_PARAMETERS, RATE, Array, Arrays, Sizes, layers_of

_variant = "eager"
Tensor = torch.Tensor


def start(threads: int, variant: str) -> None:
    global _variant
    _variant = variant
    torch.set_num_threads(threads)
    if variant == "compile":
        from torch._inductor import compile_fx  # noqa: F401  # what torch.compile would import


def versions() -> dict[str, str]:
    blas = "mkl" if torch.backends.mkl.is_available() else "other"
    threads = str(torch.get_num_threads())
    return {"python": sys.version.split()[0], "torch": torch.__version__, "threads": threads, "blas": blas}


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function) if _variant == "compile" else function


def _array(tensor: Tensor) -> Array:
    return tensor.detach().numpy()


def _tensors(arrays: Arrays, names: Sequence[str]) -> list[Tensor]:
    return [torch.from_numpy(arrays[n]) for n in names]


def _parameter(array: Array) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.from_numpy(np.array(array, order="C")))


def _peak(call: Callable[[], Any]) -> int:
    """The most bytes that one step holds beyond those it began with, by the profiler's own events."""
    call()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = np.cumsum([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())])
    return int(live.max(initial=0))


def _training(
    parameters: Mapping[str, Tensor], loss_of: Callable[..., Tensor], arrays: Arrays, names: Sequence[str], whole: bool
) -> Case:
    """Adam steps along the gradients of ``loss_of(parameters, *inputs)``; ``whole``: compiled together with them."""
    optimizer = torch.optim.Adam(parameters.values(), RATE["adam"], fused=True)
    firsts = {name: p.detach().clone() for name, p in parameters.items()}
    values = {name: p.detach() for name, p in parameters.items()}
    both = _compiled(torch.func.grad_and_value(loss_of)) if whole and _variant == "compile" else None
    forward = _compiled(loss_of)

    def step(*batch: Tensor) -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        if both is None:
            loss = forward(parameters, *batch)
            loss.backward()
        else:
            gradients, loss = both(values, *batch)
            for name, p in parameters.items():
                p.grad = gradients[name]
        optimizer.step()
        return loss

    def released() -> None:
        optimizer.zero_grad(set_to_none=True)  # gradients live from backward to the update, in every step
        step(*inputs)
        optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def reset() -> None:
        for name, p in parameters.items():
            p.copy_(firsts[name])
            for slot in optimizer.state[p].values():
                slot.zero_()

    inputs = _tensors(arrays, names)
    return Case(
        lambda: step(*inputs),
        lambda loss: {"loss": _array(loss)},
        reset,
        again=lambda others: step(*[torch.from_numpy(others[n]) for n in names]),
        facts=lambda: {"temporaries": _peak(released)},
    )


def seed(arrays: Arrays, sizes: Sizes) -> Case:
    x, y = _tensors(arrays, ("x", "y"))
    firsts = _tensors(arrays, ("w1", "w2"))
    w1, w2 = (w.clone().requires_grad_(_variant == "eager") for w in firsts)

    def loss_of(w1: Tensor, w2: Tensor) -> Tensor:
        return (x.mm(w1).relu().mm(w2) - y).pow(2).sum()

    def updated(gradients: Sequence[Tensor]) -> None:
        for w, g in zip((w1, w2), gradients, strict=True):
            w.sub_(g, alpha=RATE["seed"])

    @torch.compile
    def compiled() -> Tensor:
        gradients, loss = torch.func.grad_and_value(loss_of, argnums=(0, 1))(w1, w2)
        updated(gradients)
        return loss

    def eager() -> Tensor:
        loss = loss_of(w1, w2)
        gradients = torch.autograd.grad(loss, (w1, w2))
        with torch.no_grad():
            updated(gradients)
        return loss

    @torch.no_grad()
    def reset() -> None:
        for w, first in zip((w1, w2), firsts, strict=True):
            w.copy_(first)

    return Case(eager if _variant == "eager" else compiled, lambda loss: {"loss": _array(loss)}, reset)


def classifier(arrays: Arrays, sizes: Sizes) -> Case:
    count = len(layers_of(arrays))
    # Weights as torch.nn.Linear keeps them: (out, in).
    parameters = {name: _parameter(value.T) for name, value in arrays.items() if name not in ("x", "labels")}

    def loss_of(p: Mapping[str, Tensor], x: Tensor, labels: Tensor) -> Tensor:
        for i in range(count):
            x = F.linear(x, p[f"w{i}"], p[f"b{i}"])
            if i + 1 < count:
                x = F.relu(x)
        return F.cross_entropy(x, labels)

    return _training(parameters, loss_of, arrays, ("x", "labels"), whole=True)


def tiny(arrays: Arrays, sizes: Sizes, by_run: bool) -> Case:
    w, b = _tensors(arrays, ("w", "b"))
    function = _compiled(lambda x: torch.tanh(x * w + b) * 2 - x)
    x = arrays["x"]
    return Case(torch.no_grad()(lambda: function(torch.from_numpy(x)).numpy()), lambda y: {"y": y})


def _gradients(function: Callable[..., Tensor], wanted: Mapping[str, Tensor], others: Sequence[Tensor]) -> Case:
    """``function(*wanted, *others)`` with its gradients for ``wanted``."""
    tensors = [t.clone().requires_grad_() for t in wanted.values()]
    names = ("value", *wanted)
    if _variant == "compile":
        count = tuple(range(len(tensors)))
        both = torch.compile(torch.func.grad_and_value(function, argnums=count))
        fixed = [t.detach() for t in tensors]

        def call() -> tuple[Tensor, ...]:
            gradients, value = both(*fixed, *others)
            return value, *gradients
    else:

        def call() -> tuple[Tensor, ...]:
            value = function(*tensors, *others)
            return value, *torch.autograd.grad(value, tensors)

    return Case(call, lambda found: dict(zip(names, map(_array, found), strict=True)))


def chain(arrays: Arrays, sizes: Sizes) -> Case:
    x, w = _tensors(arrays, ("x", "w"))
    return _gradients(lambda w, x: F.gelu(x * w, approximate="tanh").mean(), {"w": w}, [x])


def softmax(arrays: Arrays, sizes: Sizes) -> Case:
    logits, labels = _tensors(arrays, ("logits", "labels"))
    return _gradients(F.cross_entropy, {"logits": logits}, [labels])


def norm(arrays: Arrays, sizes: Sizes) -> Case:
    x, scale, bias, t = _tensors(arrays, ("x", "scale", "bias", "t"))

    def value(x: Tensor, scale: Tensor, bias: Tensor, t: Tensor) -> Tensor:
        return (F.layer_norm(x, x.shape[-1:], scale, bias, eps=1e-5) * t).sum()

    return _gradients(value, {"x": x, "scale": scale, "bias": bias}, [t])


def attn(arrays: Arrays, sizes: Sizes) -> Case:
    heads, width = sizes["heads"], sizes["width"]

    def loss_of(p: Mapping[str, Tensor], x: Tensor, target: Tensor) -> Tensor:
        batch, length, _ = x.shape
        qkv = F.linear(F.layer_norm(x, (width,), p["norm1_w"], p["norm1_b"]), p["qkv_w"], p["qkv_b"])
        q, k, v = qkv.view(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, length, width)
        x = x + F.linear(mixed, p["out_w"], p["out_b"])
        wide = F.linear(F.layer_norm(x, (width,), p["norm2_w"], p["norm2_b"]), p["up_w"], p["up_b"])
        y = x + F.linear(F.gelu(wide, approximate="tanh"), p["down_w"], p["down_b"])
        return F.mse_loss(y, target)

    parameters = {name: _parameter(arrays[name].T) for name in ATTN_PARAMETERS}
    return _training(parameters, loss_of, arrays, ("x", "target"), whole=False)


def reduce(arrays: Arrays, sizes: Sizes, sums: Mapping[str, int | None]) -> Case:
    (x,) = _tensors(arrays, ("x",))
    function = _compiled(lambda x: {name: x.sum() if axis is None else x.sum(axis) for name, axis in sums.items()})
    return Case(lambda: function(x), lambda found: {name: _array(t) for name, t in found.items()})


def elementwise(arrays: Arrays, sizes: Sizes, function: str, operands: Sequence[str]) -> Case:
    given = _tensors(arrays, operands)
    call, out = getattr(torch, function), torch.empty_like(given[0])
    return Case(lambda: call(*given, out=out), lambda found: {"y": _array(found)})
