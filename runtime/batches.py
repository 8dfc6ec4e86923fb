"""Batches in groups, each of which runs in one native call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from graphc.errors import FeedError

PAUSE = 0.05  # seconds that a group may take: Python then sees signals
MOST = 256  # batches of a group
FASTER = 8  # times as many as in the group before, at most


def grouped(batches: Iterable[Any], form: Callable[[Any], tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    """Lists of ``form(batch)``: one at first, then as many as ran in ``PAUSE`` seconds. What an iterator gave before it
    raises is yielded before that is raised on.
    """
    try:
        drawn = iter(batches)
    except TypeError:
        raise FeedError(f"map: batches are a list, a loader or another iterable, got {batches!r}") from None
    size, failed, over = 1, None, False
    while not over:
        group: list[tuple[Any, ...]] = []
        try:
            while len(group) < size:
                group.append(form(next(drawn)))
        except StopIteration:
            over = True
        except BaseException as error:
            failed, over = error, True
        if group:
            start, count = time.perf_counter(), len(group)
            yield group
            spent = max(time.perf_counter() - start, 1e-9)
            size = max(1, min(MOST, FASTER * size, int(count * PAUSE / spent)))
    if failed is not None:
        raise failed
