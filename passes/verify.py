"""The verifiers: every node obeys its own op's ``infer``, checked between passes; and the calls of a program read what
was written before, and write inside their buffers, as far as that is known before the extents are.

The first is in the manner of JAX's ``typecheck_jaxpr``: the shape rules are the checker.
"""

from __future__ import annotations

from typing import NoReturn

from graphc.dims import Extent, Unifier, product
from graphc.errors import CompilerError, GraphcError
from graphc.node import Node
from graphc.opdef import Inference
from passes.graph import Graph
from passes.printer import print_window
from passes.program import Buffer, Call, GemmCall, LoopCall, Operand, Program, loops_of

_MADE = ("temp", "partial", "output")  # kinds of buffers that hold nothing before a call has written to them


def verify(graph: Graph, unifier: Unifier, *, after: str) -> None:
    """Raise ``CompilerError``, naming the pass, for a node whose inputs or result types break its op's rules."""
    seen: set[Node] = set()
    for node in graph.nodes:
        for tensor in node.inputs:
            if tensor.node not in seen:
                _fail(graph, node, after, f"reads {tensor.describe()} before it is defined")
        seen.add(node)
        _check_types(graph, node, unifier, after)


def _check_types(graph: Graph, node: Node, unifier: Unifier, after: str) -> None:
    inference = Inference(node.op, node.inputs, node.attrs)
    try:
        results = node.op.infer(inference)
    except GraphcError as error:
        _fail(graph, node, after, str(error))
    for a, b in inference.constraints:
        if b is not None and not unifier.equal(a, b) and isinstance(unifier.canonical(a - b), int):
            _fail(graph, node, after, f"needs {a} = {b}, which cannot hold")
    if len(results) != len(node.results):
        _fail(graph, node, after, f"has {len(node.results)} results, and its op infers {len(results)}")
    for found, stated in zip(results, node.results, strict=True):
        same = found.dtype == stated.dtype and len(found.shape) == len(stated.shape)
        if not same or not all(
            unifier.equal(a, b) or not isinstance(a, int) or not isinstance(b, int)
            for a, b in zip(found.shape, stated.shape, strict=True)
        ):
            _fail(graph, node, after, f"is stated as {stated}, and its op infers {found}")


def _fail(graph: Graph, node: Node, after: str, what: str) -> NoReturn:
    raise CompilerError(
        f"after pass {after!r}: {node.op.name} ({node.where}) {what}\n{print_window(graph.nodes, node)}"
    )


def verify_program(program: Program, unifier: Unifier) -> None:
    """Raise ``CompilerError``, naming the call, where one reads what none before it has written, or writes outside its
    buffer. Of writes, those are checked whose extents are numbers, and all matrix products.
    """
    written: set[Buffer] = set()
    for call in program.calls:
        for buffer in call.reads:
            if buffer.kind in _MADE and buffer not in written:
                _wrong(call, f"reads {buffer.kind} {buffer.id}, which no call before it writes")
        written.update(call.writes)
        if isinstance(call, GemmCall):
            _check_product(call, unifier)
        for loop in loops_of(call):
            for operand, arg in zip(loop.operands, loop.kernel.args, strict=True):
                if "w" in arg.mode and not arg.per_split:
                    _check_write(loop, operand)
    for output in program.outputs:
        if output.buffer.kind in _MADE and output.buffer not in written:
            raise CompilerError(f"no call writes {output.buffer.kind} {output.buffer.id}, which is fetched")


def _check_product(call: GemmCall, unifier: Unifier) -> None:
    """The result has its buffer to itself, from end to end."""
    found, needed = product(call.c.shape), product((*call.batch, call.m, call.n))
    if not unifier.equal(found, needed):
        _wrong(call, f"writes {needed} elements to {call.c.kind} {call.c.id}, which has {found}")


def _check_write(call: LoopCall, operand: Operand) -> None:
    size = product(operand.buffer.shape)
    if not all(isinstance(e, int) for e in (*call.axes, *operand.strides, operand.offset, size)):
        return
    name = f"{operand.buffer.kind} {operand.buffer.id}"
    spans: list[Extent] = [(e - 1) * s for e, s in zip(call.axes, operand.strides, strict=True)]
    first = operand.offset + sum(min(s, 0) for s in spans)
    last = operand.offset + sum(max(s, 0) for s in spans)
    if 0 not in call.axes and not 0 <= first <= last < size:
        _wrong(call, f"writes elements {first} to {last} of {name}, which has {size}")


def _wrong(call: Call, what: str) -> NoReturn:
    places = ", ".join(str(node.where) for node in call.nodes[:3])
    raise CompilerError(f"in the lowered program: {call.label!r} ({places}) {what}")
