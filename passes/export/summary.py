"""One box for each step of an optimiser: which steps are drawn so, and what their boxes say."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from graphc.opdef import Kind
from passes.export.inlining import Inliner, Span
from passes.export.measure import shortened
from passes.export.model import type_text
from passes.export.updates import Step

_CHAIN = 5  # up to so many nodes in a row say more than a summary of them
_NAMES = 34  # letters in a list of names


@dataclass(frozen=True, slots=True)
class Summary:
    """A box for ``members``, all of one kernel if of any. ``quiet``: its readers name it, and no line leads there."""

    members: tuple[int, ...]
    group: int | None
    titles: tuple[tuple[Span, ...], ...]
    lines: tuple[str, ...]
    slim: bool
    quiet: bool


def summaries(inliner: Inliner, steps: Sequence[Step]) -> list[Summary]:
    """Boxes for those ``steps`` that are more than a few nodes in a row."""
    drawn = [step for step in steps if not _is_plain(inliner, step)]
    quiet = {i: step for step in drawn if _is_quiet(inliner, step) for i in step.members}
    shared = {i for step in steps if step.owner is None for i in step.members}
    found: list[Summary] = []
    for step in drawn:
        titles = _titles(inliner, step)
        for members, group in _by_kernel(inliner, step, shared):
            lines = [*_lines(inliner, step, members, quiet)]
            if step.owner is None:
                lines.append(f"read by {sum(_reads(inliner, other, step) for other in steps)} updates")
            shown = tuple(shortened(line, 44) for line in lines)
            found.append(Summary(members, group, titles, shown, step.owner is None, members[0] in quiet))
    return found


def _is_plain(inliner: Inliner, step: Step) -> bool:
    """Whether the nodes are a short chain without slots, which is drawn as one box of several lines anyway."""
    if step.slots:
        return False
    nodes = [i for i in step.members if i not in inliner.text]
    if step.owner is None:
        return len(nodes) < 2
    single = all(len(inliner.readers[i]) < 2 for i in nodes)
    return len(nodes) <= _CHAIN and single and all(inliner.lines_into(i) == 1 for i in nodes[1:])


def _is_quiet(inliner: Inliner, step: Step) -> bool:
    """Whether it can be read by name: a count of steps and what follows from it, but nothing that waits for a gradient.

    A line from there to every update would tell little and cross much.
    """
    if step.owner is not None or not any(inliner.entries[s].name for s in step.slots):
        return False
    return not any(inliner.waits[i] for i in step.members)


def _titles(inliner: Inliner, step: Step) -> tuple[tuple[Span, ...], ...]:
    if step.owner is None:
        return (((shortened(", ".join(_slot_names(inliner, step)) or "common part", 28), "update"),),)
    kind = _kind(inliner, step.owner, step.slots)
    owner = inliner.entries[step.owner]
    update = f"{kind[:1].upper()}{kind[1:]} update of" if kind else "Update of"
    return ((update, "update"),), ((shortened(owner.name or "parameter", 28), owner.role),)


def _kind(inliner: Inliner, owner: int, slots: Sequence[int]) -> str:
    """What the names of the slots that go with the parameter begin with: ``adam`` for ``adam_m`` and ``adam_v``."""
    wanted = inliner.entries[owner].node.results
    alike = [s for s in slots if inliner.entries[s].node.results == wanted]
    names = [re.sub(r"_\d+$", "", _short(inliner, s)) for s in alike]
    return shortened(_common(names).replace("_", " "), 16)


def _common(names: Sequence[str]) -> str:
    """The words, up to an underscore, that all names begin with."""
    words = zip(*(name.split("_") for name in names), strict=False)
    return "_".join(same[0] for same in itertools.takewhile(lambda same: len(set(same)) == 1, words))


def _lines(inliner: Inliner, step: Step, members: Sequence[int], quiet: Mapping[int, Step]) -> Iterator[str]:
    """Type of the parameter, what else is written, and what is read without a line to show it."""
    shown = step.slots[:1] if step.owner is None else (step.owner,)
    yield from (type_text(inliner.entries[i].node.results[0]) for i in shown)
    targets = {inliner.sources[i][0] for i in members if inliner.entries[i].node.op.kind is Kind.UPDATE}
    written = [_short(inliner, s) for s in step.slots if s in targets]
    if step.owner is not None and written:
        yield _listed("writes", written)
    named: dict[str, None] = {}
    for i in members:
        for position, source in enumerate(inliner.sources[i]):
            operand = inliner.operand(i, source, position)
            if source in quiet and i not in quiet:
                named.update(dict.fromkeys(_slot_names(inliner, quiet[source])))
            elif operand and operand[1] != "constant" and source not in (step.owner, *step.slots):
                named[operand[0]] = None
    if named:
        yield _listed("reads", list(named))


def _reads(inliner: Inliner, step: Step, shared: Step) -> bool:
    """Whether another step reads what is computed in a shared one."""
    own = set(shared.members)
    return step is not shared and any(source in own for i in step.members for source in inliner.sources[i])


def _listed(verb: str, names: Sequence[str]) -> str:
    """As many names as fit."""
    shown = list(names)
    while len(shown) > 1 and len(", ".join(shown)) > _NAMES:
        shown.pop()
    more = f" and {len(names) - len(shown)} more" if len(shown) < len(names) else ""
    return f"{verb} {', '.join(shown)}{more}"


def _slot_names(inliner: Inliner, step: Step) -> list[str]:
    return [_short(inliner, s) for s in step.slots if inliner.entries[s].name]


def _short(inliner: Inliner, slot: int) -> str:
    """A slot's name without the parameter's in front: ``adam_m`` for ``hidden1.weight/adam_m``."""
    return shortened((inliner.entries[slot].name or "").rpartition("/")[2], 20)


def _by_kernel(inliner: Inliner, step: Step, shared: Set[int]) -> list[tuple[tuple[int, ...], int | None]]:
    """The members of each kernel. Slots and assignments belong to none and go with the nodes beside them."""
    home = {i: inliner.group_of[i] for i in step.members if i in inliner.group_of}
    sizes = Counter(home.values())
    if len(sizes) < 2:
        return [(step.members, next(iter(sizes), None))]
    main = home[max(home)] if step.owner is not None else max(sizes, key=lambda kernel: (sizes[kernel], -kernel))
    if step.owner is None:
        # Kernels compute such a scalar again where they need it: one box says more. No kernel may lose all its boxes.
        home = {i: main if _has_others(inliner, kernel, shared) else kernel for i, kernel in home.items()}
    parts: dict[int, list[int]] = {}
    for i in step.members:
        near = [home[j] for j in [*inliner.sources[i][1:], *inliner.readers[i]] if j in home]
        parts.setdefault(home.get(i, near[0] if near else main), []).append(i)
    return [(tuple(part), kernel) for kernel, part in parts.items()]


def _has_others(inliner: Inliner, kernel: int, shared: Set[int]) -> bool:
    hidden = (shared, inliner.text, inliner.transposed)
    return any(not any(i in nodes for nodes in hidden) for i in inliner.picture.groups[kernel].members)
