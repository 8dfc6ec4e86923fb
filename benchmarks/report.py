"""A run as one table: ratios of minima, goals, floors. Works on the record of a run, so old ones can be shown again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.sides import OURS, SIDES

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """``ratios``: graphc's minimum over that of each side that has one. ``best``: the fastest peer. ``value`` is what
    the goal is about, a ratio or an amount; ``met`` is None without a goal or where there is nothing to compare.
    """

    ours: float | None
    ratios: Mapping[str, float]
    best: str | None
    value: float | None
    met: bool | None


def judge(row: Record) -> Verdict:
    """What a row of a record says. A goal is ``{"ratio", "against"}``, at most so many times the fastest of those sides
    (of all peers when the list is empty), or ``{"limit"}``, at most so much. ``row["broken"]`` lists what else fails.
    """
    minima = {name: found["min"] for name, found in row["sides"].items() if "min" in found}
    ours = minima.pop(OURS, None)
    if ours is None:
        return Verdict(None, {}, min(minima, key=lambda n: minima[n], default=None), None, False)
    ratios = {name: ours / value for name, value in minima.items() if value}
    best = min(minima, key=lambda n: minima[n], default=None)
    goal, value, limit = row.get("goal") or {}, None, None
    if "limit" in goal:
        value, limit = ours, goal["limit"]
    elif "ratio" in goal:
        value = max((ratios[n] for n in goal["against"] or ratios if n in ratios), default=None)
        limit = goal["ratio"]
    met = None if value is None or limit is None else value <= limit and not row.get("broken")
    return Verdict(ours, ratios, best, value, met)


def amount(value: float, unit: str) -> str:
    """Three digits with a unit: seconds, bytes, or none (of ``ns`` there are columns)."""
    if unit == "s":
        for factor, name in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
            if value * factor >= 0.9995:
                return f"{_digits(value * factor)} {name}"
        return f"{value * 1e9:.0f} ns"
    if unit == "B":
        for factor, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
            if value >= factor:
                return f"{_digits(value / factor)} {name}"
        return f"{value:.0f} B"
    if unit == "ns":
        return _digits(value)
    return f"{value:.2f}"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 99.95 else f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def sides_of(record: Record) -> list[str]:
    """The sides of a record, in the order of the comparison."""
    present = _with_times(record["rows"]) | set(record["absent"])
    return [name for name in SIDES if name in present]


def _with_times(rows: Sequence[Record]) -> set[str]:
    return {name for row in rows for name in row["sides"]}


def table(record: Record) -> str:
    """The run as Markdown tables with aligned columns, and what kept sides from having a number."""
    elementwise, notes = record.get("vmath", ()), [f"{side}: absent, {why}" for side, why in record["absent"].items()]
    for row in (*record["rows"], *elementwise):
        notes += [f"{_name(row)}, {side}: {s['error']}" for side, s in row["sides"].items() if "error" in s]
        notes += [f"{_name(row)}: {broken}" for broken in row.get("broken", ())]
    tables = [_workloads(record)] if record["rows"] else []
    tables += [_elementwise(elementwise)] if elementwise else []
    return "\n".join(tables) + "".join(f"\n- {note}" for note in _unique(notes)) + "\n"


def _name(row: Record) -> str:
    return " ".join(filter(None, (row["workload"], row.get("dtype"))))


def _workloads(record: Record) -> str:
    peers = [name for name in sides_of(record) if name != OURS]
    header = ["workload", OURS, *(f"/ {p}" for p in peers), "/ best peer", "goal", "met", "floor", "/ floor"]
    return _aligned([header, *(_line(row, peers, record["absent"]) for row in record["rows"])])


def _elementwise(rows: Sequence[Record]) -> str:
    """A line for each function: for each dtype nanoseconds for an element, and ratios. The goal is one for both."""
    sides = _with_times(rows)
    peers = [name for name in SIDES if name in sides and name != OURS]
    functions: dict[str, list[Record]] = {}
    for row in rows:
        functions.setdefault(row["function"], []).append(row)
    header = ["ns for an element, one thread"]
    for row in functions[rows[0]["function"]]:
        header += [row["dtype"], *(f"/ {p}" for p in peers)]
    lines = [[*header, "goal", "met"]]
    for function, found in functions.items():
        verdicts = [judge(row) for row in found]
        cells = [function]
        for row, verdict in zip(found, verdicts, strict=True):
            cells += [_own_cell(row, verdict), *(_peer_cell(row, verdict, peer, {}) for peer in peers)]
        met = {verdict.met for verdict in verdicts}
        cells += [_goal_cell(found[0], "ns"), _met_cell(False if False in met else None if None in met else True)]
        lines.append(cells)
    return _aligned(lines)


def brief(row: Record) -> str:
    """One line of one row, while the run goes on."""
    verdict = judge(row)
    ratios = ", ".join(f"{_ratio(ratio)} {name}" for name, ratio in verdict.ratios.items())
    return f"{row['workload']}: {_own_cell(row, verdict)}; {ratios}"


def _line(row: Record, peers: Sequence[str], absent: Mapping[str, str]) -> list[str]:
    verdict, unit = judge(row), row["unit"]
    found = [row["workload"], _own_cell(row, verdict), *(_peer_cell(row, verdict, peer, absent) for peer in peers)]
    found.append(_ratio(verdict.ratios[verdict.best]) if verdict.best in verdict.ratios else "")
    found += [_goal_cell(row, unit), _met_cell(verdict.met)]
    floor = row.get("floor")
    distance = f"{verdict.ours / floor:.1f}" if floor and verdict.ours is not None else ""
    return [*found, amount(floor, unit) if floor else "", distance]


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value >= 0.0995 else f"{value:.3f}"


def _own_cell(row: Record, verdict: Verdict) -> str:
    if verdict.ours is not None:
        return amount(verdict.ours, row["unit"])
    return "error" if OURS in row["sides"] else ""


def _peer_cell(row: Record, verdict: Verdict, peer: str, absent: Mapping[str, str]) -> str:
    if peer in verdict.ratios:
        return _ratio(verdict.ratios[peer])
    if "error" in row["sides"].get(peer, {}):
        return "error"
    return "absent" if peer in absent else ""


def _met_cell(met: bool | None) -> str:
    return {True: "yes", False: "no", None: ""}[met]


def _goal_cell(row: Record, unit: str) -> str:
    goal = row.get("goal") or {}
    if "limit" in goal:
        return amount(goal["limit"], unit)
    if "ratio" not in goal:
        return ""
    return f"{goal['ratio']:.2f}" + (f" x {', '.join(goal['against'])}" if goal["against"] else "")


def _unique(notes: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(notes))


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = []
    for number, line in enumerate(lines):
        cells = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        text.append("| " + " | ".join(cells) + " |")
        if number == 0:
            text.append(
                "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
            )
    return "\n".join(text) + "\n"


def caption(record: Record) -> str:
    """On what, with what and how the record was made."""
    cpu, rates, ours = record["machine"]["cpu"], record["machine"]["rates"], record["versions"].get(OURS, {})
    sides = ", ".join(f"{side} {_version(side, found)}" for side, found in record["versions"].items())
    memory, fastest = rates["copy"][-1][1], max(rate for _, rate in rates["copy"])
    return (
        f"`{record['command']}` on {record['date'][:10]}: {cpu['model']} (family {cpu['family']}, model "
        f"{cpu['number']}), {record['threads']} threads, float32; {sides}; Python {ours.get('python')}, BLAS of graphc "
        f"{ours.get('blas')}. Rates of the floor: products {rates['gemm'] / 1e9:.0f} Gflop/s, copies "
        f"{memory / 1e9:.0f} GB/s in memory, up to {fastest / 1e9:.0f} GB/s in caches. Times are minima; `/` is "
        f"graphc's minimum divided by the other's: below 1, graphc is faster.\n"
    )


def _version(side: str, found: Mapping[str, str]) -> str:
    module = {"torch eager": "torch", "torch.compile": "torch"}.get(side, side)
    return found.get(module, "")
