"""How reports write amounts, shapes and places in the user's code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from graphc.dims import Extent, Symbol, evaluate, symbols
from graphc.node import Node
from graphc.where import Location

_UNITS = ("", "k", "M", "G", "T")


def known(extent: Extent, values: Mapping[Symbol, int]) -> Extent:
    """The number that ``extent`` is at ``values``, or ``extent`` itself where they do not say."""
    return evaluate(extent, values) if symbols(extent) <= values.keys() else extent


def amount(number: Extent, unit: str) -> str:
    """``1.5 kB`` for 1500 bytes; ``4*batch B`` where the number is not known."""
    if not isinstance(number, int):
        return f"({number}) {unit}" if " " in str(number) else f"{number} {unit}"
    scaled, power = float(number), 0
    while abs(scaled) >= 999.5 and power < len(_UNITS) - 1:
        scaled, power = scaled / 1000, power + 1
    return f"{scaled:.3g} {_UNITS[power]}{unit}"


def shape_text(shape: Iterable[Extent]) -> str:
    """``[64, 256]``."""
    return f"[{', '.join(map(str, shape))}]"


def places(locations: Iterable[Location]) -> str:
    """``model.py:3, 5 in build; train.py:9``: every line once, in the order of files and lines."""
    lines: dict[tuple[str, str], list[int]] = {}
    for where in sorted(set(locations), key=lambda w: (w.file, w.function, w.line)):
        lines.setdefault((where.file, where.function), []).append(where.line)
    parts = []
    for (file, function), numbers in lines.items():
        first = str(Location(file, numbers[0], "<module>"))
        more = "".join(f", {n}" for n in numbers[1:])
        parts.append(f"{first}{more}{'' if function == '<module>' else f' in {function}'}")
    return "; ".join(parts)


def lines_of(nodes: Iterable[Node]) -> tuple[Location, ...]:
    """The user's lines from which ``nodes`` come, each once, in the order of the nodes."""
    return tuple(dict.fromkeys(place for node in nodes for place in node.places))


def named(items: Sequence[str]) -> str:
    """``add, 2 multiply``: each word once, with its number, in the order of first use."""
    counts = dict.fromkeys(items, 0)
    for item in items:
        counts[item] += 1
    return ", ".join(item if n == 1 else f"{n} {item}" for item, n in counts.items())


def values_text(values: Mapping[Symbol, int]) -> str:
    """``batch = 64``; nothing for no symbols."""
    return ", ".join(f"{symbol} = {value}" for symbol, value in values.items())
