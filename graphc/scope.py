"""Bodies of loops and branches: which one is being traced, and what it captures from outside."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from graphc.node import Tensor


class Body:
    """A loop or branch body being traced. Outer tensors used in it become its captures, in order of first use."""

    def __init__(self, label: str, parent: Body | None) -> None:
        self.label = label
        self.parent = parent
        self.captures: dict[Tensor, None] = {}

    def encloses(self, inner: Body | None) -> bool:
        """Whether ``inner`` is this body or nested in it."""
        while inner is not None:
            if inner is self:
                return True
            inner = inner.parent
        return False


_body: contextvars.ContextVar[Body | None] = contextvars.ContextVar("graphc_body", default=None)


def current_body() -> Body | None:
    """The innermost body being traced, or None at top level."""
    return _body.get()


@contextlib.contextmanager
def trace_body(label: str) -> Iterator[Body]:
    """Trace a new body: nodes made inside the block belong to it."""
    body = Body(label, _body.get())
    token = _body.set(body)
    try:
        yield body
    finally:
        _body.reset(token)
