"""Results written past the cache: the same bytes as those written in their place, and none beside them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from passes.program import LoopCall
from runtime.cpu import binding, streaming

Array = np.ndarray[Any, Any]
F32 = np.float32
SIZES = (1, 15, 16, 17, 255, 1023, 1024, 1025, 5000)


def flushed(target: Array, source: Array, at: int, count: int) -> None:
    flush = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(streaming.flush_address())
    flush(target.ctypes.data + at, source.ctypes.data, 0, count)
    flush(0, 0, 0, 0)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 63, 64, 65, 127, 128, 129, 200, 4096, 4097])
def test_flush_moves_these_bytes_and_no_others(count: int) -> None:
    source = np.random.default_rng(0).integers(0, 255, count + 64, np.uint8)
    for at in [*range(66), 127, 128]:
        for moved in (0, 1, 16):  # the source need not be aligned either
            target = np.full(count + 256, 255, np.uint8)
            flushed(target, source[moved:], at, count)
            assert (target[at : at + count] == source[moved : moved + count]).all()
            assert (target[:at] == 255).all()
            assert (target[at + count :] == 255).all()


def runs(fetches: Any, feeds: dict[Any, Any], monkeypatch: pytest.MonkeyPatch) -> list[list[Array]]:
    """Results written in their place; past the cache by every call; and so by one thread."""
    found = []
    for streams, threads in ((False, None), (True, None), (True, 1)):
        monkeypatch.setattr(binding, "worth_streaming", lambda buffer, size, streams=streams: streams)
        with graphc.Session(threads=threads) as session:
            found.append(session.run(fetches, feeds))
    return found


def same(fetches: Any, feeds: dict[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    plain, streamed, by_one = runs(fetches, feeds, monkeypatch)
    for a, b, c in zip(plain, streamed, by_one, strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes() == np.asarray(c).tobytes()


@pytest.mark.parametrize("dtype", ["bool", "int8", "int32", "uint64", "float32", "float64"])
@pytest.mark.parametrize("size", SIZES)
def test_elementwise(size: int, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = graphc.placeholder((None,), dtype, name="x")
    other = graphc.logical_not(x) if dtype == "bool" else x + x
    values = np.random.default_rng(size).integers(0, 2 if dtype == "bool" else 100, size).astype(dtype)
    same([other, graphc.equal(x, other)], {x: values}, monkeypatch)


def cross_entropy(x: graphc.Tensor) -> list[graphc.Tensor]:
    loss = -graphc.mean(graphc.log_softmax(x, 1)[:, 0])
    return [loss, graphc.gradients(loss, [x])[0]]


ROWS: dict[str, Callable[[graphc.Tensor], Any]] = {
    "broadcast": lambda x: x + graphc.arange(x.shape[1], dtype="float32"),
    "slices": lambda x: [x[1:, 1:] * 2, x[:, ::-1] * 2],
    "concat": lambda x: [graphc.concat([x, -x], 1), graphc.concat([x * 2, x], 0)],
    "transposed": lambda x: [graphc.matrix_transpose(x) + 1],
    "norm and gradients": lambda x: [graphc.nn.layer_norm(x), x - graphc.mean(x, 1, keepdims=True)],
    "softmax": lambda x: [graphc.softmax(x), graphc.softmax(x, 0)],
    "softmax and its sum": lambda x: [graphc.softmax(x * 2), graphc.sum(graphc.softmax(x * 2) * x, 1)],
    "log softmax and its gradient": lambda x: cross_entropy(x),
    "running sum": lambda x: [graphc.cumulative_sum(x, axis=1) + 1],
    "sums beside results": lambda x: [x * 3, graphc.sum(x * 3, 0), graphc.sum(x * 3, 1), graphc.sum(x * 3)],
}


@pytest.mark.parametrize("shape", [(1, 3), (3, 1), (5, 17), (40, 1030), (2000, 10), (2, 5000)])
@pytest.mark.parametrize("form", ROWS)
def test_rows(form: str, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    x = graphc.placeholder((None, None), name="x")
    values = np.random.default_rng(1).normal(size=shape).astype(F32)
    fetches = ROWS[form](x)
    same(fetches if isinstance(fetches, list) else [fetches], {x: values}, monkeypatch)


def test_a_training_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Updates in place, temporaries and epilogues of products: parameters too are the same."""
    x, labels = graphc.placeholder((None, 40), name="x"), graphc.placeholder((None,), "int64", name="labels")
    model = graphc.nn.Sequential(graphc.nn.Linear(40, 130), graphc.nn.ReLU(), graphc.nn.Linear(130, 7))
    loss = graphc.nn.cross_entropy(model(x), labels)
    train = graphc.optim.Adam(0.01).minimize(loss)
    rng = np.random.default_rng(2)
    feeds = {x: rng.normal(size=(70, 40)).astype(F32), labels: rng.integers(0, 7, 70)}
    held = []
    for streams in (False, True):
        monkeypatch.setattr(binding, "worth_streaming", lambda buffer, size, streams=streams: streams)
        with graphc.Session(seed=4) as session:
            for _ in range(3):
                session.run([loss, train], feeds)
            held.append([session.get(p).tobytes() for p in session._store])
    assert held[0] == held[1]


def streamed_arguments(fetches: Any) -> list[int]:
    with graphc.Session() as session:
        calls = [c for c in session.compile(fetches).kernels if isinstance(c, LoopCall)]
    return [len(streaming.streamed(c.kernel)) for c in calls]


def test_only_what_waits_for_memory_is_streamed() -> None:
    x = graphc.placeholder((None, 64), name="x")
    assert streamed_arguments(x * 2 + 1) == [1]
    assert streamed_arguments([x * 2, x + 1]) == [2]
    assert streamed_arguments(graphc.tanh(x)) == [0]  # arithmetic hides the stores
    assert streamed_arguments(graphc.softmax(x)) == [0]  # the row is read again where it was written
    assert streamed_arguments(graphc.sum(x, 1)) == [0]


def test_small_results_stay_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "cache_size", lambda: 4096)
    asked: list[tuple[str, int, bool]] = []

    def noted(buffer: Any, size: int) -> bool:
        asked.append((buffer.kind, size, streaming.worth_streaming(buffer, size)))
        return asked[-1][2]

    monkeypatch.setattr(binding, "worth_streaming", noted)
    x = graphc.placeholder((None,), name="x")
    with graphc.Session() as session:
        for size in (200, 300):
            session.run(x * 2, {x: np.zeros(size, F32)})
    assert asked == [("output", 800, False), ("output", 1200, True)]


def test_size_of_the_cache_is_one() -> None:
    assert 2**17 <= streaming.cache_size() <= 2**33
