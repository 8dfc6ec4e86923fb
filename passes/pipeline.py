"""The whole order of the tensor-graph passes, on one page.

    stabilise       forms that overflow or cancel, before their derivatives are taken
    gradients       every gradient request becomes the nodes that compute it
    simplify        a fixed set of exact rewrites
    stabilise       again, for what the gradients brought
    decompose       composite ops (softmax, ...) become simple ones
    simplify
    fold            what depends on constants alone becomes a constant
    cse             equal nodes become one
    gemm            parameter updates by a matrix product become one BLAS call

What nothing reads is gone after every pass, because a graph is what can be reached from its outputs. Fusion, scheduling
and memory follow in ``lower.py``.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from graphc.dims import Unifier
from graphc.errors import CompilerError, GraphcError
from passes.cse import eliminate_common_subexpressions
from passes.decompose import decompose
from passes.fold import fold_constants
from passes.gemm import fuse_updates
from passes.gradient import expand_gradients
from passes.graph import Graph
from passes.options import CompileOptions
from passes.printer import print_graph
from passes.simplify import simplify
from passes.stabilise import stabilise
from passes.verify import verify

log = logging.getLogger("graphc.passes")


@dataclass(frozen=True)
class Pass:
    """A rewrite of the whole graph, under the name that dumps and errors give it."""

    name: str
    function: Callable[[Graph], Graph]


PASSES: tuple[Pass, ...] = (
    Pass("stabilise", stabilise),
    Pass("gradients", expand_gradients),
    Pass("simplify", simplify),
    Pass("stabilise-again", stabilise),
    Pass("decompose", decompose),
    Pass("simplify-again", simplify),
    Pass("fold", fold_constants),
    Pass("cse", eliminate_common_subexpressions),
    Pass("gemm", fuse_updates),
)

Callback = Callable[[int, Pass, Graph, float], None]


def optimize(graph: Graph, options: CompileOptions | None = None, unifier: Unifier | None = None) -> Graph:
    """``graph`` after all passes. A pass that fails is named, with those that ran before it."""
    options = options or CompileOptions.from_environment()
    after = _between(options, unifier or Unifier())
    after(0, Pass("written", lambda g: g), graph, 0.0)
    for number, step in enumerate(PASSES, 1):
        start = time.perf_counter()
        try:
            graph = step.function(graph)
        except GraphcError:
            raise
        except Exception as error:
            done = ", ".join(p.name for p in PASSES[: number - 1]) or "none"
            raise CompilerError(f"pass {step.name!r} failed (passes done: {done}): {error}") from error
        after(number, step, graph, time.perf_counter() - start)
    return graph


def _between(options: CompileOptions, unifier: Unifier) -> Callback:
    """What happens after every pass: verify, write, time."""

    def after(number: int, step: Pass, graph: Graph, seconds: float) -> None:
        log.debug("%-16s %6d nodes %8.2f ms", step.name, len(graph.nodes), seconds * 1e3)
        if options.dump:
            _dump(options.dump, f"{number:02d}-{step.name}", print_graph(graph))
        if options.verify:
            verify(graph, unifier, after=step.name)

    return after


def _dump(target: str, name: str, text: str) -> None:
    if target == "-":
        log.info("graph %s\n%s", name, text)
        return
    os.makedirs(target, exist_ok=True)
    with open(os.path.join(target, f"{name}.txt"), "w", encoding="utf-8") as file:
        file.write(text)
