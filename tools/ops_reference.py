"""Writes ``docs/ops.md``: every op of the registry and every public function made of ops, as the code has them.

    python tools/ops_reference.py

What is said of an op comes from its row, from its public function, and from the lists of exemptions that the tests of
the registry keep; nothing is typed here.
"""

from __future__ import annotations

import builtins
import inspect
import operator
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "ops.md"
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "registry")]

from op_samples import builders, default, placeholders, shape_sets  # noqa: E402
from test_completeness import NO_REFERENCE, NO_SAMPLES, NOT_IN_GRAPHC, OTHER_PUBLIC_NAME  # noqa: E402
from test_gradients import differentiable  # noqa: E402

import graphc  # noqa: E402
from graphc import nn, ops, optim, random  # noqa: E402
from graphc.node import Node  # noqa: E402
from graphc.opdef import OPS, Kind, NotDifferentiable, OpDef  # noqa: E402
from graphc.operators import Operators  # noqa: E402
from passes.graph import Graph  # noqa: E402

KINDS = {"f": "float", "i": "int", "u": "uint", "b": "bool"}
KERNELS = {
    Kind.LEAF: ("leaf", "no kernel: a value from outside, or of the session"),
    Kind.SCALAR: ("elementwise", "one element out of one of each operand, fused with what is around it"),
    Kind.VIEW: ("view", "no kernel: an index map of whoever reads it"),
    Kind.RESHAPE: ("reshape", "no kernel: the same memory under another shape"),
    Kind.REDUCE: ("reduction", "combines the elements along axes by the primitive in brackets, with what makes them"),
    Kind.MATMUL: ("product", "a matrix product, with what follows it as its epilogue"),
    Kind.GATHER: ("gather", "elementwise, but reads its first operand at computed places"),
    Kind.CONCAT: ("pieces", "each operand is computed where its part of the result lies"),
    Kind.ROUTINE: ("routine", "the kernel in brackets, written by hand in `runtime/cpu/`"),
    Kind.COMPOSITE: ("composite", "decomposed, after stabilising and gradients, into the ops in brackets"),
    Kind.TRANSFORM: ("transform", "replaced by what it stands for before anything is compiled"),
    Kind.UPDATE: ("update", "writes a parameter at the end of a run, in place where it can"),
}
HEAD = ("op", "public function", "meaning", "operands", "gradient", "kernel", "checked by")

INTRODUCTION = """\
# The ops

Written by `make docs` from the registry (`graphc/opdef.py`) and the public modules; not to be edited.

{counts}

Columns of the tables:

- **operands**: the dtype kinds of each operand of the op itself. Its public function may convert first: integers that
  meet a function of floats become float32.
- **gradient**: `yes`, or why there is none.
- **kernel**: what becomes of it on the CPU; *may fail* where a run may fail for what it finds in the data.
- **checked by**: `values`: the CPU kernel, and the op's rule evaluated with NumPy, against the reference on generated
  samples (`tests/registry/test_values.py`, and `test_completeness.py` for index maps, decompositions and reductions).
  `gradient`: first and second derivatives against differences (`test_gradients.py`). Otherwise, why not and where.

Kinds of kernel:

{kernels}
"""
COMPOSED = """\
# Functions made of ops

Their values and gradients follow from those of the ops; each has tests of its own.
"""


def reference() -> str:
    """The whole page."""
    modules = sorted({_home(op).__name__ for op in OPS.values()})
    counts = Counter(op.kind for op in OPS.values())
    composed = list(_composed())
    found = [
        INTRODUCTION.format(
            counts=f"{len(OPS)} ops, and {sum(len(rows) for _, rows in composed)} functions and classes made of them.",
            kernels="\n".join(f"- *{word}* ({counts[kind]}): {what}" for kind, (word, what) in KERNELS.items()),
        )
    ]
    spelled = _spellings()
    for name in modules:
        module = sys.modules[name]
        rows = [_row(op, spelled.get(op.name, [])) for op in OPS.values() if _home(op) is module]
        found.append(_section(f"## `{name}`", _meaning(module), [HEAD, *rows]))
    found.append(COMPOSED)
    for title, rows in composed:
        found.append(_section(f"## `{title}`", "", [("function", "meaning"), *rows]))
    return "\n".join(found)


def _section(title: str, text: str, rows: Sequence[Sequence[str]]) -> str:
    cells = [[cell.replace("|", r"\|") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    lines.insert(1, "|" + "---|" * len(cells[0]))
    return "\n".join([title, "", *([text, ""] if text else []), *lines, ""])


# One op.


def _row(op: OpDef, spelled: Sequence[str]) -> tuple[str, ...]:
    function = _function(op)
    written = [
        f"`{module.__name__}.{_signature(function)}`"
        for module in (graphc, nn, random)
        if function.__name__ in module.__all__ and getattr(module, function.__name__) is function
    ]
    meaning = _meaning(function)
    if op.name in NOT_IN_GRAPHC and not written:
        written, meaning = [NOT_IN_GRAPHC[op.name]], op.doc
    elif function.__name__ != op.name and function.__name__ in OPS:  # which has a row of its own
        written, meaning = [f"made by {function.__name__}"], op.doc
    return (
        f"`{op.name}`", ", ".join([*written, *spelled]), meaning, _operands(op),
        f"none: {op.vjp.why}" if isinstance(op.vjp, NotDifferentiable) else "yes", _kernel(op), _checks(op),
    )  # fmt: skip


def _function(op: OpDef) -> Callable[..., Any]:
    name = OTHER_PUBLIC_NAME.get(op.name, op.name)
    found: Callable[..., Any] = getattr(ops if op.name in NOT_IN_GRAPHC else graphc, name)
    return found


def _home(op: OpDef) -> ModuleType:
    """The module of an op's public function: its family."""
    return sys.modules[_function(op).__module__]


def _operands(op: OpDef) -> str:
    words = ["any" if set(k) == set(KINDS) else ", ".join(KINDS[c] for c in KINDS if c in k) for k in op.domain.kinds]
    found: list[str] = []
    for word in dict.fromkeys(words):
        count = words.count(word)
        found.append(word if count == 1 else f"{count} of {word}")
    return "; ".join(found) or "none"


def _kernel(op: OpDef) -> str:
    detail = ""
    if op.kind is Kind.REDUCE:
        detail = f" ({op.reduce})"
    elif op.kind is Kind.COMPOSITE:
        detail = f" ({', '.join(dict.fromkeys(n for node in _nodes(op) for n in _parts(node)))})"
    elif op.kind is Kind.ROUTINE:
        assert op.routine is not None
        detail = f" ({', '.join(dict.fromkeys(op.routine(node).name for node in _nodes(op)))})"
    return KERNELS[op.kind][0] + detail + (", *may fail*" if op.fallible else "")


def _nodes(op: OpDef) -> Iterator[Node]:
    """A node of each form that the op's samples build."""
    dtypes = tuple(default(kinds) for kinds in op.domain.kinds)
    shapes = next(s for s in shape_sets(op) if op.domain.shapes or all(len(shape) == 2 for shape in s))
    for build in builders(op):
        yield build(*placeholders(shapes, dtypes)).node


def _parts(node: Node) -> Iterator[str]:
    """The ops that a composite becomes, inputs first."""
    assert node.op.decompose is not None
    outside = set(Graph(tuple(node.inputs)).nodes)
    yield from (n.op.name for n in Graph((node.op.decompose(node),)).nodes if n not in outside)


def _checks(op: OpDef) -> str:
    if op.name in NO_SAMPLES:
        why = NO_REFERENCE.get(op.name)
        return NO_SAMPLES[op.name] + (f"; no reference: {why}" if why else "")
    return "values, gradient" if differentiable(op) else "values"


# How a function is written with operators and methods.


def _spellings() -> dict[str, list[str]]:
    """Operators, methods and attributes of tensors by the function that they name."""
    found: dict[str, list[str]] = {}
    for name, member in vars(Operators).items():
        function = member.fget if isinstance(member, property) else member
        if not inspect.isfunction(function) or (name.startswith("__r") and name != "__round__"):
            continue  # reflected operators are written like the others
        named = {*function.__code__.co_names, *function.__code__.co_consts}
        for target in sorted(named & set(ops.__all__)):
            found.setdefault(target, []).append(f"`{_spelling(name, member)}`")
    return found


def _spelling(name: str, member: Any) -> str:
    """``a.T``, ``a.sum(axis=None)``, ``a + b``, ``round(a)`` or ``math.floor(a)``."""
    if not name.startswith("__"):
        return f"a.{name}" if isinstance(member, property) else f"a.{_signature(member)}"
    plain = name.strip("_")
    for module in (operator, builtins):
        function = getattr(module, plain, None) or getattr(module, f"{plain}_", None)
        if function is not None:
            said = re.fullmatch(r"Same as (.+?)\.?", function.__doc__.splitlines()[0])
            return said[1] if said else f"{plain}(a)"
    return f"math.{plain}(a)"


# Functions made of ops.


def _composed() -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The name of a public module, and a row for each of its functions that builds no op of its own."""
    spelled = _spellings()
    own = {_function(op) for op in OPS.values()}
    rows = []
    for name in (n for n in ops.__all__ if n not in OPS):
        function = getattr(ops, name)
        if function not in own:
            public = [f"`{_signature(function)}`"] if name in graphc.__all__ else []
            rows.append((", ".join([*public, *spelled.get(name, [])]), _meaning(function)))
    yield "graphc", rows
    for module in (nn, random, optim, optim.schedules):
        members = [getattr(module, name) for name in getattr(module, "__all__", vars(module))]
        yield (
            module.__name__,
            [
                (f"`{_signature(m)}`", _meaning(m))
                for m in members
                if (inspect.isfunction(m) or inspect.isclass(m))
                and m.__module__.startswith(module.__name__)
                and not m.__name__.startswith("_")
            ],
        )


# Words.


def _signature(function: Callable[..., Any]) -> str:
    """Name and parameters, without annotations."""
    parameters = inspect.signature(function).parameters.values()
    plain = [p.replace(annotation=p.empty) for p in parameters if p.name != "self"]
    return f"{function.__name__}{inspect.Signature(plain)}"


def _meaning(documented: Any) -> str:
    """The first sentence of a docstring, in Markdown."""
    first = (inspect.getdoc(documented) or "").split("\n\n")[0].replace("\n", " ")
    sentence = re.split(r"(?<=\.)(?<!\b[A-Z]\.)\s", first)[0]  # the initial of a name ends none
    return re.sub(r":\w+:(`.+?`)", r"\1", sentence).replace("``", "`").removesuffix(":")


def main() -> None:
    text = reference()
    TARGET.write_text(text, encoding="utf-8")
    print(f"{TARGET.relative_to(ROOT)}: {text.splitlines()[4]}")


if __name__ == "__main__":
    main()
