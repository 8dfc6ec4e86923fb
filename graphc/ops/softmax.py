"""Normalised exponentials: composite ops, whole for the rewrites that stabilise, then lowered to simpler ones.

All subtract the largest element first, so that no exponential overflows (N. Higham et al., "Accurately computing the
log-sum-exp and softmax functions", IMA J. Numer. Anal. 41, 2021).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from graphc.node import Node, Tensor, TensorType, attrs_of, make_node
from graphc.opdef import Domain, Inference, Kind, OpDef, register
from graphc.ops.comparison import equal, where
from graphc.ops.elementwise import abs, as_float, stop_gradient
from graphc.ops.exponential import exp, log
from graphc.ops.leaf import zeros_like
from graphc.ops.power import reciprocal
from graphc.ops.reduce import Axis, max, restored, sum
from graphc.ops.shape import normalize_axes, normalize_axis, squeeze

_SAMPLE = Domain(("f",), rank=1, empty=False)


def _same(c: Inference) -> tuple[TensorType, ...]:
    c.require_dtype("f")
    (axis,) = c.attrs["axis"]
    c.nonempty(c.inputs[0].shape[axis], f"axis {axis}")
    return (c.inputs[0].type,)


def _reduced(c: Inference) -> tuple[TensorType, ...]:
    (same,) = _same(c)
    axes, keep = c.attrs["axis"], c.attrs["keepdims"]
    return (
        TensorType(tuple(1 if i in axes else e for i, e in enumerate(same.shape) if keep or i not in axes), same.dtype),
    )


def _shifted(node: Node) -> tuple[Tensor, Tensor]:
    """``x - m`` and ``m``, where ``m`` is the largest element, or 0 where that is infinite."""
    x = node.inputs[0]
    largest = stop_gradient(max(x, node.attrs["axis"], keepdims=True))
    shift = where(equal(abs(largest), np.inf), zeros_like(largest), largest)
    return x - shift, shift


def _numpy_shifted(r: Any, x: Any) -> tuple[Any, Any]:
    largest = np.max(x, axis=r.attrs["axis"], keepdims=True)
    shift = np.where(np.isinf(largest), 0, largest).astype(x.dtype)
    return x - shift, shift


def _softmax_reference(r: Any, x: Any) -> Any:
    with np.errstate(all="ignore"):
        e = np.exp(_numpy_shifted(r, x)[0])
        return e / np.sum(e, axis=r.attrs["axis"], keepdims=True)


def _logsumexp_keep(r: Any, x: Any) -> Any:
    with np.errstate(all="ignore"):
        shifted, shift = _numpy_shifted(r, x)
        return np.log(np.sum(np.exp(shifted), axis=r.attrs["axis"], keepdims=True)) + shift


def _logsumexp_reference(r: Any, x: Any) -> Any:
    kept = _logsumexp_keep(r, x)
    return kept if r.attrs["keepdims"] else np.squeeze(kept, r.attrs["axis"])


def _log_softmax_reference(r: Any, x: Any) -> Any:
    with np.errstate(all="ignore"):
        shifted, _ = _numpy_shifted(r, x)
        return shifted - np.log(np.sum(np.exp(shifted), axis=r.attrs["axis"], keepdims=True))


def _softmax_vjp(node: Node, g: Tensor) -> list[Tensor | None]:
    s, axis = node.outputs[0], node.attrs["axis"]
    return [s * (g - sum(g * s, axis, keepdims=True))]


def _log_softmax_vjp(node: Node, g: Tensor) -> list[Tensor | None]:
    # softmax shares the exponentials of log_softmax; exp of the logarithm would compute them again.
    (axis,) = node.attrs["axis"]
    return [g - softmax(node.inputs[0], axis) * sum(g, axis, keepdims=True)]


def _logsumexp_vjp(node: Node, g: Tensor) -> list[Tensor | None]:
    return [restored(node, g) * softmax(node.inputs[0], node.attrs["axis"][0])]


def _softmax_parts(node: Node) -> Tensor:
    # One division for each row; of the sum, which is at least 1 or NaN, unless all are -inf, and 0 * inf is NaN too.
    e = exp(_shifted(node)[0])
    return e * reciprocal(sum(e, node.attrs["axis"], keepdims=True))


def _log_softmax_parts(node: Node) -> Tensor:
    shifted, _ = _shifted(node)
    return shifted - log(sum(exp(shifted), node.attrs["axis"], keepdims=True))


def _logsumexp_parts(node: Node) -> Tensor:
    shifted, shift = _shifted(node)
    kept = log(sum(exp(shifted), node.attrs["axis"], keepdims=True)) + shift
    return kept if node.attrs["keepdims"] else squeeze(kept, node.attrs["axis"])


SOFTMAX = register(
    OpDef(
        "softmax", Kind.COMPOSITE, _same, _softmax_reference, _softmax_vjp, decompose=_softmax_parts, domain=_SAMPLE,
        samples=(lambda x: softmax(x), lambda x: softmax(x, 0)), doc="exp(x) / sum(exp(x)) along an axis.",
    )
)  # fmt: skip
LOG_SOFTMAX = register(
    OpDef(
        "log_softmax", Kind.COMPOSITE, _same, _log_softmax_reference, _log_softmax_vjp, decompose=_log_softmax_parts,
        domain=_SAMPLE, samples=(lambda x: log_softmax(x), lambda x: log_softmax(x, 0)),
        doc="Logarithm of softmax along an axis.",
    )
)  # fmt: skip
LOGSUMEXP = register(
    OpDef(
        "logsumexp", Kind.COMPOSITE, _reduced, _logsumexp_reference, _logsumexp_vjp, decompose=_logsumexp_parts,
        domain=_SAMPLE, samples=(lambda x: logsumexp(x, -1), lambda x: logsumexp(x, 0, keepdims=True)),
        doc="log(sum(exp(x))) along an axis.",
    )
)  # fmt: skip


def _along(op: OpDef, x: Any, axis: int, **attrs: Any) -> Tensor:
    tensor = as_float(x, op.name)
    return make_node(op, (tensor,), attrs_of(axis=(normalize_axis(axis, tensor.ndim, op.name),), **attrs)).outputs[0]


def softmax(x: Any, axis: int = -1) -> Tensor:
    """``exp(x) / sum(exp(x))`` along ``axis``, in the shape of ``x``; never overflows."""
    return _along(SOFTMAX, x, axis)


def log_softmax(x: Any, axis: int = -1) -> Tensor:
    """Logarithm of ``softmax(x)`` along ``axis``, exact where softmax underflows."""
    return _along(LOG_SOFTMAX, x, axis)


def logsumexp(x: Any, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
    """``log(sum(exp(x)))`` over ``axis`` (an int, several, or all for None), without overflow; -inf where all are -inf.
    Over several axes it is that of one after another.
    """
    tensor = as_float(x, "logsumexp")
    axes = normalize_axes(axis, tensor.ndim, "logsumexp")
    for place in reversed(axes):
        tensor = _along(LOGSUMEXP, tensor, place, keepdims=bool(keepdims))
    return tensor
