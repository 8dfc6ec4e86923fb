"""A case as a program to paste. Every node is written as the public call that makes it, found by trying."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

import graphc as gc
from fuzz.arguments import BuildError
from fuzz.case import Array, Case
from fuzz.check import TIMES, Failure
from fuzz.sharing import IMPORTS, SHARED
from graphc import ops
from graphc.dims import Atom, Dim, Extent, Minimum, Quotient, Symbol
from graphc.node import Node, Tensor

# Attributes by the names that public functions have for them.
OTHER_NAMES = {"axes": "axis", "axis": "axes"}
LONG = 60  # elements, from which on an array of many numbers is hard to read


def script(case: Case, failure: Failure | None = None, comment: str = "") -> str:
    """A program that builds the case, runs it on both devices, and asserts what does not hold."""
    return _Writer(case).written(failure, comment)


class _Writer:
    def __init__(self, case: Case) -> None:
        self.case = case
        self.names: dict[Tensor, str] = {}
        self.symbols: dict[Symbol, str] = {}
        self.imports: dict[str, None] = {}

    def written(self, failure: Failure | None, comment: str) -> str:
        case = self.case
        body = [line for node in case.graph.nodes for line in self.node(node)]
        updates = [f"gc.assign({self.names[u.inputs[0]]}, {self.names[u.inputs[1]]})" for u in case.updates]
        if updates:
            body.append(f"update = gc.group({', '.join(updates)})")
        unread = {t for feeds in case.runs for t in feeds} - set(case.placeholders)
        body += [line for t in sorted(unread, key=lambda t: t.node.serial) for line in self.node(t.node)]
        body += self.running(failure)
        head = [f"# {line}".rstrip() for line in comment.splitlines()]
        head += ["import os", "", 'os.environ["GRAPHC_VERIFY"] = "1"', ""]
        head += ["import numpy as np", "from numpy import inf, nan", "import graphc as gc", *self.imports]
        head += [IMPORTS, SHARED] if case.sharing else []
        head += [f"{name} = gc.dim({name!r})" for name in self.symbols.values()]
        return "\n".join([*head, "", *body]) + "\n"

    def running(self, failure: Failure | None) -> list[str]:
        case = self.case
        fetches = ", ".join([*(self.names[t] for t in case.outputs), *(["update"] if case.updates else [])])
        written = [self.names[u.inputs[0]] for u in case.updates]
        lines = ["runs = ["]
        for feeds in case.runs:
            inside = ", ".join(f"{self.names[t]}: {source(a)}" for t, a in feeds.items())
            lines.append(f"    {{{inside}}},")
        lines += [
            "]",
            "",
            "def run(*args, **options):",
            "    results = []",
            "    with gc.Session(*args, **options) as s:",
        ]
        lines += [f"        s.set({self.names[p]}, {source(a)})" for p, a in case.values.items() if p in self.names]
        lines += [
            "        for feeds in runs:",
            "            with np.errstate(all='ignore'):",
            f"                found = s.run([{fetches}], feeds)[:{len(case.outputs)}]",
            f"            found += [s.get(p) for p in [{', '.join(written)}]]",
            "            results.append([np.asarray(a) for a in found])",
            "    return results",
            "",
        ]
        if failure is not None and failure.kind == "repeat":
            return lines + _repeating(fetches, [self.names[t] for t in case.runs[failure.run]], written, failure.run)
        return lines + _asserting(failure)

    # Nodes.

    def node(self, node: Node) -> list[str]:
        """The line that makes ``node``; none for an update, or for what is written already."""
        if not node.outputs or node.outputs[0] in self.names:
            return []
        before = [line for t in _tensors(node.attrs.values()) for line in self.node(t.node)]
        call = self.call(node)
        names = [f"t{len(self.names) + i}" for i in range(len(node.outputs))]
        self.names.update(zip(node.outputs, names, strict=True))
        comma = "," if node.op.name == "gradient" and len(names) == 1 else ""
        return [*before, f"{', '.join(names)}{comma} = {call}"]

    def call(self, node: Node) -> str:
        name, attrs = node.op.name, node.attrs
        if name == "placeholder":
            return f"gc.placeholder({self.value(attrs['shape'])}, {str(attrs['dtype'])!r})"
        if name == "parameter":
            with gc.Session("reference") as session:
                value = np.asarray(session.get(node.outputs[0]))
            return f"gc.parameter({source(value)})"
        if name == "constant":
            return f"gc.constant({source(attrs['value'])})"
        if name == "extent":
            self.imports["from graphc import ops"] = None
            return f"ops.extent_value({self.value(attrs['extent'])}, np.dtype({str(attrs['dtype'])!r}))"
        if name == "gradient":
            n = attrs["targets"]
            parts = [", ".join(self.names[t] for t in p) for p in (node.inputs[:n], node.inputs[2 * n :])]
            grad_ys = ", ".join(self.names[t] for t in node.inputs[n : 2 * n])
            return f"gc.gradients([{parts[0]}], [{parts[1]}], [{grad_ys}], unreachable='zero')"
        return self.public(node) or self.private(node)

    def public(self, node: Node) -> str | None:
        """A call of a public function that makes exactly this node."""
        operands = [self.names[t] for t in node.inputs]
        if node.op.name == "slice":
            key = _key(node)
            if _makes(lambda: node.inputs[0][key], node):
                return f"{operands[0]}[{', '.join(map(self.between, key))}]"
        for text, function in _functions(node.op.name):
            for arguments in _arguments(function, node.attrs):
                if _makes(lambda f=function, a=arguments: f(*node.inputs, **a), node):
                    if text.startswith("ops."):
                        self.imports["from graphc import ops"] = None
                    shown = [f"{k}={self.value(v)}" for k, v in arguments.items()]
                    return f"{text}({', '.join([*operands, *shown])})"
        return None

    def private(self, node: Node) -> str:
        """Where no public function makes this very node: the node itself."""
        self.imports["from graphc.node import attrs_of, make_node"] = None
        self.imports["from graphc.opdef import OPS"] = None
        operands = "".join(f"{self.names[t]}, " for t in node.inputs)
        attrs = ", ".join(f"{k}={self.value(v)}" for k, v in node.attrs.items())
        last = "outputs[0]" if len(node.outputs) == 1 else "outputs"
        return f"make_node(OPS[{node.op.name!r}], ({operands}), attrs_of({attrs})).{last}"

    # Values.

    def value(self, value: Any) -> str:
        if isinstance(value, Dim):
            return self.extent(value)
        if isinstance(value, Tensor):
            return self.names[value]
        if isinstance(value, tuple):
            inside = ", ".join(map(self.value, value))
            return f"({inside},)" if len(value) == 1 else f"({inside})"
        if isinstance(value, list):
            return f"[{', '.join(self.value(v) for v in value)}]"
        if isinstance(value, np.dtype):
            return f"np.dtype({str(value)!r})"
        if isinstance(value, np.ndarray):
            return source(value)
        if isinstance(value, slice):
            return f"slice({self.value(value.start)}, {self.value(value.stop)}, {self.value(value.step)})"
        return repr(value)

    def between(self, part: slice) -> str:
        """A slice as it is written in brackets."""
        ends = ["" if e is None else self.value(e) for e in (part.start, part.stop)]
        return ":".join([*ends, str(part.step)] if part.step is not None else ends)

    def extent(self, extent: Extent) -> str:
        if isinstance(extent, int):
            return str(extent)
        terms = []
        for monomial, coefficient in extent.terms:
            factors = [str(coefficient)] if coefficient != 1 or not monomial else []
            for atom, power in monomial:
                factors += [self.atom(atom)] * power
            terms.append("*".join(factors))
        return " + ".join(terms)

    def atom(self, atom: Atom) -> str:
        if isinstance(atom, Quotient):
            return f"(({self.extent(atom.numerator)})//({self.extent(atom.denominator)}))"
        if not isinstance(atom, Symbol):
            self.imports["from graphc.bounds import floor_div, min_extent"] = None
            if isinstance(atom, Minimum):
                return f"min_extent({', '.join(map(self.extent, atom.extents))})"
            return f"floor_div({self.extent(atom.numerator)}, {atom.divisor})"
        if atom not in self.symbols:
            self.symbols[atom] = atom.name if atom.name.isidentifier() else f"d{len(self.symbols)}"
        return self.symbols[atom]


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Tensors among the attributes of a node: the leaves in the rule of a custom gradient."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple):
            yield from _tensors(value)


def _key(node: Node) -> tuple[slice, ...]:
    """What to index with for the elements that a ``slice`` node takes."""
    key = []
    x = node.inputs[0]
    for extent, start, step, count in zip(x.shape, *(node.attrs[k] for k in ("start", "step", "shape")), strict=True):
        if (start, step, count) == (0, 1, extent):
            key.append(slice(None, None))
            continue
        stop = start + step * count
        key.append(slice(start, None if isinstance(stop, int) and stop < 0 else stop, None if step == 1 else step))
    return tuple(key)


def _functions(name: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    for text, place in (("gc", gc), ("gc.nn", gc.nn), ("gc.random", getattr(gc, "random", None)), ("ops", ops)):
        for spelling in (name, f"{name}_"):
            found = getattr(place, spelling, None)
            if callable(found):
                yield f"{text}.{spelling}", found


def _arguments(function: Callable[..., Any], attrs: Any) -> Iterator[dict[str, Any]]:
    """Keyword arguments that may give these attributes."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return
    choices: list[list[tuple[str, Any]]] = []
    for key, value in attrs.items():
        name = key if key in parameters else OTHER_NAMES.get(key, key)
        if name not in parameters:
            continue
        options = [(name, value)]
        if isinstance(value, tuple) and len(value) == 1:
            options.append((name, value[0]))
        choices.append(options)
    for combination in itertools.islice(itertools.product(*choices), 16):
        yield dict(combination)


def _makes(build: Callable[[], Any], node: Node) -> bool:
    try:
        made = build()
    except Exception:
        return False
    return isinstance(made, Tensor) and same_node(made.node, node)


def same_node(a: Node, b: Node) -> bool:
    """Whether two nodes are one op on the same inputs with the same attributes."""
    if a.op is not b.op or len(a.inputs) != len(b.inputs) or a.attrs.keys() != b.attrs.keys():
        return False
    if any(x is not y for x, y in zip(a.inputs, b.inputs, strict=True)):
        return False
    return all(_same(a.attrs[k], b.attrs[k]) for k in a.attrs)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return np.array_equal(np.asarray(a), np.asarray(b))
    return type(a) is type(b) and bool(a == b)


def source(array: Array) -> str:
    """An array as an expression, of the same memory layout where that is unusual."""
    swapped = not array.dtype.isnative
    plain = np.require(array, array.dtype.newbyteorder("="), ["C", "A"])
    text = _numbers(plain)
    if swapped:
        text += ".astype(np.dtype(" + repr(str(plain.dtype)) + ").newbyteorder())"
    if array.ndim and not array.flags.c_contiguous and array.size:
        text = f"np.repeat({text}, 2, -1)[..., ::2]"
    return text


def _numbers(array: Array) -> str:
    dtype = f"np.{array.dtype}" if array.dtype != bool else "np.bool_"
    if not array.size:
        return f"np.zeros({array.shape}, {dtype})"
    first = array.reshape(-1)[0]
    if array.size > 4 and array.tobytes() == np.full(array.shape, first, array.dtype).tobytes():
        return f"np.full({array.shape}, {_number(first)}, {dtype})"
    if not array.ndim:
        return f"np.asarray({_number(first)}, {dtype})"
    if is_pattern(array):
        values = {"b": "% 2", "u": "% 5"}.get(array.dtype.kind, "% 5 - 2")
        return f"(np.arange({array.size}) {values}).astype({dtype}).reshape{array.shape}"
    values = ", ".join(_number(v) for v in array.reshape(-1))
    shaped = "" if array.ndim == 1 else f".reshape{array.shape}"
    return f"np.array([{values}], {dtype}){shaped}"


def pattern(shape: tuple[int, ...], dtype: Any) -> Array:
    """Small whole numbers in turn."""
    kind = np.dtype(dtype).kind
    count = np.arange(int(np.prod(shape)))
    values = count % 2 if kind == "b" else count % 5 - (0 if kind == "u" else 2)
    return values.astype(dtype).reshape(shape)


def is_pattern(array: Array) -> bool:
    """Whether a long array is the one that ``pattern`` gives."""
    return array.size > LONG and array.flags.carray and np.array_equal(array, pattern(array.shape, array.dtype))


def _number(value: Any) -> str:
    if value.dtype.kind == "f":
        return str(value)  # inf, nan, or digits enough
    return repr(value.item())


def _repeating(fetches: str, feeds: list[str], written: list[str], run: int) -> list[str]:
    given, parameters = ", ".join(feeds), ", ".join(written)
    return [
        "with gc.Session(threads=1) as s, gc.Session(threads=2) as t:",
        f"    singly = [s.run([{fetches}], runs[{run}]) for _ in range({TIMES})][-1]",
        f"    at_once = t.compile([{fetches}], [{given}]).repeat({TIMES}, *[runs[{run}][x] for x in [{given}]])",
        f"    pairs = [*zip(singly, at_once), *((s.get(p), t.get(p)) for p in [{parameters}])]",
        "    for a, b in pairs:",
        "        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), (a, b)",
    ]


def _asserting(failure: Failure | None) -> list[str]:
    head = ["one, two, reference = run(threads=1), run(threads=2), run('reference')"]
    same = [
        "for a, b in zip(one, two):",
        "    assert [x.tobytes() for x in a] == [x.tobytes() for x in b], 'other bits on two threads'",
    ]
    if failure is None or failure.difference is None:
        return [*head, *same] if failure is not None and failure.kind == "threads" else [*head, "print(reference, one)"]
    d, run = failure.difference, failure.run
    lines = [*head, f"found, expected = one[{run}][{d.place}], reference[{run}][{d.place}]"]
    lines.append("assert found.dtype == expected.dtype and found.shape == expected.shape, (found, expected)")
    if isinstance(d.found, str):
        return lines
    lines.append(f"f, e = found[{d.index}], expected[{d.index}]")
    if d.tolerance and np.isfinite(d.tolerance):
        lines.append(
            f"assert f == e or np.isnan([f, e]).all() or abs(float(f) - float(e)) <= {d.tolerance:.3g}, (f, e)"
        )
    else:
        lines.append("assert str(f) == str(e), (f, e)  # the sign of a zero counts, that of a NaN does not")
    return lines


def call_script(error: BuildError, failure: Failure) -> str:
    """A program that makes the call which raised what is no error of graphc; tensors among its arguments are fed."""
    writer = _Writer(Case((), (), ()))
    lines: list[str] = []

    def shown(value: Any) -> str:
        if isinstance(value, list):
            return f"[{', '.join(map(shown, value))}]"
        if not isinstance(value, Tensor):
            return writer.value(value)
        if value not in writer.names:
            lines.extend(writer.node(gc.placeholder(value.shape, value.dtype).node))
            writer.names[value] = f"t{len(writer.names) - 1}"
        return writer.names[value]

    inside = [*map(shown, error.arguments), *(f"{k}={shown(v)}" for k, v in error.keywords.items())]
    imports = ["from graphc.opdef import OPS"] if error.name.startswith("OPS") else []
    head = [f"# {failure.message.splitlines()[0]}", "import numpy as np", "from numpy import inf, nan"]
    dims = [f"{name} = gc.dim({name!r})" for name in writer.symbols.values()]
    return (
        "\n".join([*head, "import graphc as gc", *imports, *dims, *lines, f"{error.name}({', '.join(inside)})"]) + "\n"
    )
