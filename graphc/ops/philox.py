"""Random bits: the counter-based generator Philox4x32-10, and the ops that draw from it.

A number is a pure function of a key, of the session's run counter and of its element's index (J. Salmon et al.,
"Parallel random numbers: as easy as 1, 2, 3", SC 2011). Key and counter are leaves whose values the session holds;
they are operands, never written into a kernel. ``graphc.random`` makes distributions of these bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from graphc.dims import Extent
from graphc.dtypes import DType
from graphc.errors import ArgumentError, DTypeError
from graphc.node import Tensor, TensorType, attrs_of, make_node
from graphc.opdef import Domain, Inference, Kind, NotDifferentiable, OpDef, Routine, register
from graphc.ops.elementwise import astype
from graphc.ops.rules import DISCRETE

uint32, uint64 = np.dtype(np.uint32), np.dtype(np.uint64)
LOW32 = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)  # what is added to the two halves of the key from round to round
ROUNDS = 10


# The generator.


def mix(x: int) -> int:
    """A bijection of 64-bit integers whose every output bit depends on every input bit: the finaliser of SplitMix64
    (G. Steele et al., "Fast splittable pseudorandom number generators", OOPSLA 2014).
    """
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
    return x ^ (x >> 31)


def stream_key(session_seed: int, stream: int, *, explicit: bool) -> int:
    """The 64-bit key of a stream: ``mix(mix(session_seed + golden ratio) ^ (2 * stream + explicit))``.

    Different streams of one session have different keys, and those given by ``seed=`` are apart from those that the
    session numbers.
    """
    return mix(mix((session_seed + 0x9E3779B97F4A7C15) % 2**64) ^ (2 * stream + explicit))


def philox(b: Any, counter: Sequence[Any], key: Sequence[Any]) -> tuple[Any, Any, Any, Any]:
    """Four random words out of four words of counter and two of key, all uint32, written with the primitives of a
    :class:`graphc.expr.Builder`.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    multipliers = [b.const(m, uint64) for m in MULTIPLIERS]
    weyl = [b.const(w, uint32) for w in WEYL]
    half = b.const(32, uint64)
    for number in range(ROUNDS):
        if number:
            k0, k1 = b.add(k0, weyl[0]), b.add(k1, weyl[1])
        p = b.mul(b.cast(c0, uint64), multipliers[0])
        q = b.mul(b.cast(c2, uint64), multipliers[1])
        high_p, high_q = (b.cast(b.binary("shr", x, half), uint32) for x in (p, q))
        c0 = b.binary("bitxor", b.binary("bitxor", high_q, c1), k0)
        c2 = b.binary("bitxor", b.binary("bitxor", high_p, c3), k1)
        c1, c3 = b.cast(q, uint32), b.cast(p, uint32)
    return c0, c1, c2, c3


def numpy_philox(counter: Sequence[Any], key: Sequence[Any]) -> tuple[Any, Any, Any, Any]:
    """The same of NumPy arrays of uint64, each element below 2**32."""
    low, half = np.uint64(LOW32), np.uint64(32)
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        p, q = c0 * np.uint64(MULTIPLIERS[0]), c2 * np.uint64(MULTIPLIERS[1])
        c0, c1, c2, c3 = (q >> half) ^ c1 ^ k0, q & low, (p >> half) ^ c3 ^ k1, p & low
        k0, k1 = (k0 + np.uint64(WEYL[0])) & low, (k1 + np.uint64(WEYL[1])) & low
    return c0, c1, c2, c3


def numpy_words(key: Any, runs: Any, count: int) -> tuple[Any, Any, Any, Any]:
    """The four words of elements 0 to ``count - 1``."""
    index = np.arange(count, dtype=np.uint64)
    halves = [np.asarray(x, np.uint64).reshape(()) for x in (runs, key)]
    (r0, r1), (k0, k1) = ((x & np.uint64(LOW32), x >> np.uint64(32)) for x in halves)
    counter = (index & np.uint64(LOW32), index >> np.uint64(32), r0, r1)
    return numpy_philox([np.broadcast_to(c, index.shape) for c in counter], (k0, k1))


# The ops.


def _scalar_type(c: Inference) -> tuple[TensorType, ...]:
    return (TensorType((), uint64),)


_LEAF = NotDifferentiable("a leaf has no inputs")
RANDOM_KEY = register(
    OpDef(
        "random_key", Kind.LEAF, _scalar_type, None, _LEAF, domain=Domain(kinds=()),
        doc="The key of a stream of random numbers, which the session makes of its seed and the stream.",
    )
)  # fmt: skip
RUN_COUNTER = register(
    OpDef(
        "run_counter", Kind.LEAF, _scalar_type, None, _LEAF, domain=Domain(kinds=()),
        doc="How many runs with updates the session has completed.",
    )
)  # fmt: skip


def _check_state(c: Inference) -> None:
    for tensor, what in zip(c.inputs, ("the key", "the run counter"), strict=True):
        if tensor.ndim or tensor.dtype != uint64:
            raise c.fail(f"{what} must be a uint64 scalar, got {tensor.type}", DTypeError)


def _infer_bits(c: Inference) -> tuple[TensorType, ...]:
    _check_state(c)
    c.nonempty(c.attrs["nonempty"], "the range of the numbers")
    return (TensorType(c.attrs["shape"], c.attrs["dtype"]),)


def _bits_reference(r: Any, key: Any, runs: Any) -> Any:
    words = numpy_words(key, runs, math.prod(r.shape))
    if r.dtype == uint32:
        found = words[r.attrs["word"]]
    else:
        low, high = words[2 * r.attrs["word"] :][:2]
        found = low | (high << np.uint64(32))
    return found.astype(r.dtype).reshape(r.shape)


def _emit_bits(b: Any, attrs: Any, key: Any, runs: Any) -> Any:
    def halves(x: Any) -> tuple[Any, Any]:
        wide = b.cast(x, uint64)
        return b.cast(wide, uint32), b.cast(b.binary("shr", wide, b.const(32, uint64)), uint32)

    words = philox(b, (*halves(b.flat_index()), *halves(runs)), halves(key))
    if attrs["dtype"] == uint32:
        return words[attrs["word"]]
    low, high = (b.cast(w, uint64) for w in words[2 * attrs["word"] :][:2])
    return b.binary("bitor", low, b.binary("shl", high, b.const(32, uint64)))


def _sample(shape: tuple[Extent, ...], dtype: DType, word: int) -> Any:
    return lambda key, runs: random_bits(astype(key, uint64), astype(runs, uint64), shape, dtype, word)


RANDOM_BITS = register(
    OpDef(
        "random_bits", Kind.SCALAR, _infer_bits, _bits_reference, DISCRETE, emit=_emit_bits, cost=80,
        domain=Domain(("u", "u"), shapes=(((), ()),)),
        samples=(
            _sample((), uint32, 0), _sample((5,), uint32, 3), _sample((2, 3), uint32, 1), _sample((0, 3), uint32, 2),
            _sample((2, 1, 4), uint64, 0), _sample((7,), uint64, 1),
        ),
        doc="Words of Philox4x32-10 at each element's index, for a key and a run counter.",
    )
)  # fmt: skip


def _infer_permutation(c: Inference) -> tuple[TensorType, ...]:
    _check_state(c)
    return (TensorType((c.attrs["extent"],), np.dtype(np.int64)),)


def _permutation_reference(r: Any, key: Any, runs: Any) -> Any:
    """Fisher and Yates, from the back: element i changes places with one of those up to it, by 64 bits of its own."""
    (count,) = r.shape
    low, high, _, _ = numpy_words(key, runs, count)
    size = np.arange(1, count + 1, dtype=np.uint64)  # below 2**32, as every reference array is
    half = np.uint64(32)
    partners = (high * size + (low * size >> half)) >> half
    found = list(range(count))
    for i in range(count - 1, 0, -1):
        j = int(partners[i])
        found[i], found[j] = found[j], found[i]
    return np.array(found, np.int64)


def _sample_permutation(extent: Extent) -> Any:
    return lambda key, runs: permutation(astype(key, uint64), astype(runs, uint64), extent)


PERMUTATION = register(
    OpDef(
        "permutation", Kind.ROUTINE, _infer_permutation, _permutation_reference, DISCRETE,
        routine=lambda node: Routine("permutation", (node.attrs["extent"],)),
        domain=Domain(("u", "u"), shapes=(((), ()),)),
        samples=(_sample_permutation(7), _sample_permutation(1), _sample_permutation(0), _sample_permutation(1000)),
        doc="0 to n - 1 in random order.",
    )
)  # fmt: skip


# The functions that make their nodes.


def random_key(seed: int | None = None) -> Tensor:
    """The key of a stream of random numbers: of stream ``seed``, or of one of its own. uint64, a scalar."""
    if seed is not None and (
        isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**63
    ):
        raise ArgumentError(f"random: seed must be an int from 0 to 2**63 - 1, or None, got {seed!r}")
    return make_node(RANDOM_KEY, (), attrs_of(seed=None if seed is None else int(seed))).outputs[0]


def run_counter() -> Tensor:
    """How many runs with updates the session completed before this one. uint64, a scalar."""
    return make_node(RUN_COUNTER, ()).outputs[0]


def random_bits(
    key: Tensor, runs: Tensor, shape: tuple[Extent, ...], dtype: DType, word: int, nonempty: Extent = 1
) -> Tensor:
    """Word number ``word`` of the four uint32, or two uint64, that belong to each element of ``shape``.

    ``nonempty`` is an extent that must turn out to be at least 1.
    """
    attrs = attrs_of(shape=shape, dtype=dtype, word=word, nonempty=nonempty)
    return make_node(RANDOM_BITS, (key, runs), attrs).outputs[0]


def permutation(key: Tensor, runs: Tensor, extent: Extent) -> Tensor:
    """0 to ``extent - 1`` (int64) in random order."""
    return make_node(PERMUTATION, (key, runs), attrs_of(extent=extent)).outputs[0]
