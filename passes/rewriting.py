"""Rewrites by rules: a pass that visits every node once, inputs before readers, and offers it to the rules of its op.

A rule is a function of a node, and of the :class:`Context` through which it looks at what is behind its inputs. It
returns the tensor that replaces the node's result, or None. Its name is what logs say, its docstring what it does.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from graphc.node import Node, Tensor
from graphc.opdef import OpDef
from graphc.where import derived_from
from passes.graph import Graph, on_inputs, rebuild
from passes.matching import Context

Rule = Callable[[Node, Context], "Tensor | None"]

REPEATS = 4  # how often what a rule returns is offered to the rules again

log = logging.getLogger("graphc.passes")
_firings: contextvars.ContextVar[Counter[str] | None] = contextvars.ContextVar("graphc_firings", default=None)


@contextlib.contextmanager
def firings() -> Iterator[Counter[str]]:
    """Counts how often each rule fires inside the block, under ``pass.rule``."""
    counts: Counter[str] = Counter()
    token = _firings.set(counts)
    try:
        yield counts
    finally:
        _firings.reset(token)


class Rules:
    """The rules of one pass, by op; tried in the order in which they were added."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.by_op: dict[OpDef, list[Rule]] = {}

    def on(self, *ops: OpDef) -> Callable[[Rule], Rule]:
        """Adds a rule for the nodes of ``ops``."""

        def add(rule: Rule) -> Rule:
            for op in ops:
                self.by_op.setdefault(op, []).append(rule)
            return rule

        return add

    def apply(self, graph: Graph, barriers: Iterable[Tensor] = ()) -> Graph:
        """``graph`` with the first rule that matches applied to each node. Barriers stay as they are: neither replaced
        nor looked behind.
        """
        context = Context(barriers)
        counts: Counter[str] = Counter()

        def rewrite(node: Node, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            context.follow(node.inputs, inputs)
            if node.op not in self.by_op or node.outputs[0] in context.barriers:
                return None
            current = on_inputs(node, inputs)
            with derived_from(node.where, node.role):
                return (self._rewritten(current.outputs[0], context, counts),)

        result = rebuild(graph, rewrite)
        self._report(counts)
        return result

    def _rewritten(self, tensor: Tensor, context: Context, counts: Counter[str]) -> Tensor:
        for _ in range(REPEATS):
            for rule in self.by_op.get(tensor.node.op, ()):
                found = rule(tensor.node, context)
                if found is not None:
                    counts[rule.__name__] += 1
                    break
            else:
                return tensor
            tensor = found
            if tensor in context.barriers:
                return tensor
        return tensor

    def _report(self, counts: Counter[str]) -> None:
        if not counts:
            return
        log.debug("%s: %s", self.name, ", ".join(f"{rule} {n}" for rule, n in sorted(counts.items())))
        account = _firings.get()
        if account is not None:
            account.update({f"{self.name}.{rule}": n for rule, n in counts.items()})
