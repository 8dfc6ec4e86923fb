"""Bodies of loops and branches: what they capture, what may not leave them."""

from __future__ import annotations

import threading

import pytest

import graphc
from graphc.errors import ScopeError
from graphc.scope import current_body, trace_body


def names(body: object) -> list[str]:
    return [t.name for t in body.captures]  # type: ignore[attr-defined]


def test_outer_tensors_become_captures_in_order_of_first_use() -> None:
    a, b, c = (graphc.placeholder((2,), name=n) for n in "abc")
    assert current_body() is None
    with trace_body("step") as body:
        assert current_body() is body
        inner = b + a
        result = inner * b * inner
    assert current_body() is None
    assert names(body) == ["b", "a"]
    assert result.node.body is body
    assert a.node.body is None
    assert c not in body.captures


def test_an_inner_body_captures_through_the_outer_one() -> None:
    a = graphc.placeholder((2,), name="a")
    with trace_body("outer") as outer:
        middle = graphc.constant(1.0, name="middle")
        with trace_body("inner") as inner:
            result = a * middle
    assert names(inner) == ["a", "middle"]
    assert names(outer) == ["a"]
    assert result.node.body is inner
    assert inner.parent is outer
    assert outer.encloses(inner)
    assert not inner.encloses(outer)


def test_a_bodys_tensor_may_not_be_used_outside() -> None:
    a = graphc.placeholder((2,), name="a")
    with trace_body("step"):
        kept = a * 2
    with pytest.raises(ScopeError) as error:
        graphc.exp(kept)
    text = str(error.value)
    assert text.startswith(
        f"exp: {kept.name}: multiply float32[2] (tests/graphc/test_scope.py:{kept.node.where.line} in "
    )
    assert "was made inside the body of 'step' and cannot be used outside it; return it from the body instead" in text


def test_nor_in_a_body_beside_it() -> None:
    a = graphc.placeholder((2,), name="a")
    with trace_body("then"):
        kept = a * 2
    with trace_body("else") as other, pytest.raises(ScopeError, match=r"add: .* was made inside the body of 'then'"):
        a + kept
    assert names(other) == []


def test_nor_in_the_body_around_it() -> None:
    a = graphc.placeholder((2,), name="a")
    with trace_body("outer"):
        with trace_body("inner"):
            kept = a * 2
        with pytest.raises(ScopeError, match="'inner'"):
            kept + 1


def test_the_body_ends_with_an_error_in_it() -> None:
    with pytest.raises(ZeroDivisionError), trace_body("step"):
        raise ZeroDivisionError
    assert current_body() is None


def test_no_update_and_no_parameter_inside() -> None:
    w = graphc.parameter([1.0], name="w")
    with trace_body("step") as body:
        with pytest.raises(
            ScopeError, match="assign: 'w' cannot be updated inside a loop or branch body; update it after the loop"
        ):
            graphc.assign(w, w * 2)
        with pytest.raises(ScopeError, match="parameter 'v': a parameter is made outside loop and branch bodies"):
            graphc.parameter([1.0], name="v")
        w + 1
    assert names(body) == ["w"]


def test_another_thread_is_at_top_level() -> None:
    seen: list[object] = []
    with trace_body("step"):
        thread = threading.Thread(target=lambda: seen.append(current_body()))
        thread.start()
        thread.join()
    assert seen == [None]
