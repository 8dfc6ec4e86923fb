"""The whole order of the tensor-graph passes, on one page.

    stabilise       forms that overflow or cancel, before their derivatives are taken
    gradients       every gradient request becomes the nodes that compute it
    simplify        a fixed set of exact rewrites
    stabilise       again, for what the gradients brought
    decompose       composite ops (softmax, ...) become simple ones
    vectors         products with vectors become sums
    simplify
    fold            what depends on constants alone becomes a constant
    cse             equal nodes become one
    gemm            parameter updates by a matrix product become one product

What nothing reads is gone after every pass, because a graph is what can be reached from its outputs. Fusion, scheduling
and memory follow in ``lower.py``.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from graphc.dims import Unifier
from graphc.errors import CompilerError, GraphcError
from graphc.node import Tensor
from passes.cse import eliminate_common_subexpressions
from passes.decompose import decompose
from passes.fold import fold_constants
from passes.gemm import fuse_updates
from passes.gradient import expand_gradients
from passes.graph import Graph, composed, rebuilds
from passes.options import CompileOptions
from passes.printer import print_graph
from passes.simplify import simplify
from passes.stabilise import stabilise
from passes.vectors import products_with_vectors
from passes.verify import verify

log = logging.getLogger("graphc.passes")


@dataclass(frozen=True)
class Pass:
    """A rewrite of the whole graph, under the name that dumps and errors give it.

    ``stabilises`` marks one that may turn values that were not finite into finite ones; all others keep every value up
    to rounding.
    """

    name: str
    function: Callable[[Graph], Graph]
    stabilises: bool = False


@dataclass(frozen=True)
class Stage:
    """The graph after a pass, which took ``seconds``. ``replaced`` says what stands for each tensor of the graph before
    it, as far as the pass was made of rebuilds.
    """

    done: Pass
    graph: Graph
    replaced: Mapping[Tensor, Tensor] = field(default_factory=dict)
    seconds: float = 0.0


PASSES: tuple[Pass, ...] = (
    Pass("stabilise", stabilise, stabilises=True),
    Pass("gradients", expand_gradients),
    Pass("simplify", simplify),
    Pass("stabilise-again", stabilise, stabilises=True),
    Pass("decompose", decompose),
    Pass("vectors", products_with_vectors),
    Pass("simplify-again", simplify),
    Pass("fold", fold_constants),
    Pass("cse", eliminate_common_subexpressions),
    Pass("gemm", fuse_updates),
)

Watch = Callable[[Stage], None]
WRITTEN = Pass("written", lambda graph: graph)


def optimize(
    graph: Graph, options: CompileOptions | None = None, unifier: Unifier | None = None, watch: Watch | None = None
) -> Graph:
    """``graph`` after all passes. A pass that fails is named, with those that ran before it.

    ``watch`` is shown the graph as written and after every pass.
    """
    options = options or CompileOptions.from_environment()
    after = _between(options, unifier or Unifier(), watch)
    after(0, Stage(WRITTEN, graph))
    for number, step in enumerate(PASSES, 1):
        start = time.perf_counter()
        try:
            with rebuilds() as steps:
                graph = step.function(graph)
        except Exception as error:
            done = ", ".join(p.name for p in PASSES[: number - 1]) or "none"
            told = f"pass {step.name!r} failed (passes done: {done})"
            if isinstance(error, GraphcError):
                error.add_note(told)
                raise
            raise CompilerError(f"{told}: {error}") from error
        seconds = time.perf_counter() - start
        after(number, Stage(step, graph, composed(steps) if watch else {}, seconds))
    return graph


def _between(options: CompileOptions, unifier: Unifier, watch: Watch | None) -> Callable[[int, Stage], None]:
    """What happens after every pass: verify, write, time, watch."""

    def after(number: int, stage: Stage) -> None:
        name, graph = stage.done.name, stage.graph
        log.debug("%-16s %6d nodes %8.2f ms", name, len(graph.nodes), stage.seconds * 1e3)
        if options.dump:
            _dump(options.dump, f"{number:02d}-{name}", print_graph(graph))
        if options.verify:
            verify(graph, unifier, after=name)
        if watch is not None:
            watch(stage)

    return after


def _dump(target: str, name: str, text: str) -> None:
    if target == "-":
        log.info("graph %s\n%s", name, text)
        return
    os.makedirs(target, exist_ok=True)
    with open(os.path.join(target, f"{name}.txt"), "w", encoding="utf-8") as file:
        file.write(text)
