"""Sums of products over named axes: ``einsum`` and ``tensordot``, out of matrix products where there are any."""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from graphc.dims import product
from graphc.errors import ShapeError
from graphc.node import Tensor
from graphc.ops import reduce
from graphc.ops.elementwise import astype
from graphc.ops.leaf import as_operands
from graphc.ops.linalg import agreed, diagonal, matmul, require_numbers, with_extent
from graphc.ops.shape import expand_dims, normalize_axis, permute_dims, reshape

TYPICAL = 32  # stands for a symbolic extent when the order of products is chosen
Label: TypeAlias = str  # a letter; "...0" is the last axis that Ellipsis stands for, "...1" the one before


@dataclass(frozen=True)
class _Term:
    """A tensor and the label of each of its axes, all different."""

    tensor: Tensor
    labels: tuple[Label, ...]

    def extent(self, label: Label) -> Any:
        return self.tensor.shape[self.labels.index(label)]

    def summed(self, kept: Iterable[Label]) -> _Term:
        """Without the labels that are not kept, which are summed over."""
        wanted = set(kept)
        axes = tuple(i for i, label in enumerate(self.labels) if label not in wanted)
        return _Term(reduce.sum(self.tensor, axes), tuple(n for n in self.labels if n in wanted)) if axes else self

    def ordered(self, labels: Sequence[Label]) -> Tensor:
        """The tensor with axes in the order of ``labels``; of extent 1 where it has none."""
        mine = permute_dims(self.tensor, [self.labels.index(n) for n in labels if n in self.labels])
        return expand_dims(mine, tuple(i for i, n in enumerate(labels) if n not in self.labels))


def einsum(subscripts: str, *operands: Any) -> Tensor:
    """Einstein's summation with NumPy's rules, for any number of operands: ``einsum("ij,jk->ik", a, b)`` is ``a @ b``.
    A label that the result does not have is summed over; one repeated within an operand walks its diagonal; ``...``
    stands for leading axes, which broadcast. Without ``->`` the result has the labels that occur once, in
    alphabetical order.

    Products run in an order that NumPy's greedy search finds cheap, as matrix products for floats. Integers wrap around
    in their own width. Raises ``ShapeError`` for subscripts that are malformed or do not fit, ``DTypeError`` for bools.
    """
    if not isinstance(subscripts, str):
        raise ShapeError(f"einsum: the subscripts are a string such as 'ij,jk->ik', got {subscripts!r}")
    if not operands:
        raise ShapeError(f"einsum: {subscripts!r} needs at least one operand, got none")
    tensors = as_operands("einsum", *operands)
    require_numbers(tensors[0], "einsum")
    inputs, output = _parsed(subscripts, tensors)
    _check_extents(subscripts, tensors, inputs)
    terms = [_diagonals(subscripts, tensor, labels) for tensor, labels in zip(tensors, inputs, strict=True)]
    for step in _path(terms, output):
        chosen = [terms.pop(i) for i in sorted(step, reverse=True)][::-1]
        found = chosen[0]
        for number, other in enumerate(chosen[1:], 2):
            needed = {*output, *(n for t in (*terms, *chosen[number:]) for n in t.labels)}
            found = _contracted(found, other, needed)
        terms.append(found)
    return astype(terms[0].summed(output).ordered(output), tensors[0].dtype)


def tensordot(x: Any, y: Any, axes: int | tuple[Sequence[int], Sequence[int]] = 2) -> Tensor:
    """Sum of products over pairs of axes: the last ``axes`` of ``x`` and the first of ``y``, or those listed in a pair
    of sequences. The result has the other axes of ``x``, then those of ``y``.
    """
    left, right = as_operands("tensordot", x, y)
    require_numbers(left, "tensordot")
    pairs = _axis_pairs(left, right, axes)
    left, right = agreed(left, right, pairs, "tensordot")
    first = [f"x{i}" for i in range(left.ndim)]
    second = [f"y{i}" for i in range(right.ndim)]
    for i, j in pairs:
        second[j] = first[i]
    output = [n for n in first if n not in second] + [n for n in second if n not in first]
    found = _contracted(_Term(left, tuple(first)), _Term(right, tuple(second)), set(output))
    return astype(found.ordered(output), left.dtype)


def _axis_pairs(x: Tensor, y: Tensor, axes: Any) -> list[tuple[int, int]]:
    if isinstance(axes, (int, np.integer)) and not isinstance(axes, bool):
        if not 0 <= axes <= min(x.ndim, y.ndim):
            raise ShapeError(
                f"tensordot: {axes} axes cannot be summed over\n  operands:\n    {x.describe()}\n    {y.describe()}"
            )
        return [(x.ndim - int(axes) + i, i) for i in range(int(axes))]
    if not isinstance(axes, (tuple, list)) or len(axes) != 2:
        raise ShapeError(f"tensordot: axes is an int or a pair of sequences of ints, got {axes!r}")
    sides = [a if isinstance(a, (tuple, list)) else (a,) for a in axes]
    if len(sides[0]) != len(sides[1]):
        raise ShapeError(f"tensordot: as many axes of both operands, got {axes!r}")
    mine, other = (
        [normalize_axis(a, t.ndim, "tensordot") for a in side] for side, t in zip(sides, (x, y), strict=True)
    )
    if len(set(mine)) != len(mine) or len(set(other)) != len(other):
        raise ShapeError(f"tensordot: an axis is summed over once, got {axes!r}")
    return list(zip(mine, other, strict=True))


# Subscripts.


def _parsed(subscripts: str, tensors: Sequence[Tensor]) -> tuple[list[tuple[Label, ...]], tuple[Label, ...]]:
    """The labels of each operand's axes, and of the result's."""
    left, arrow, right = subscripts.replace(" ", "").partition("->")
    texts = left.split(",")
    if len(texts) != len(tensors):
        raise ShapeError(f"einsum: {subscripts!r} names {len(texts)} operands, got {len(tensors)}")
    inputs = []
    for text, tensor in zip(texts, tensors, strict=True):
        letters = _letters(text, subscripts)
        hidden = tensor.ndim - sum(n != "..." for n in letters)
        if hidden < 0 or (hidden and "..." not in letters):
            raise ShapeError(
                f"einsum: {text!r} of {subscripts!r} does not fit the {tensor.ndim} axes of {tensor.describe()}"
            )
        inputs.append(_spelled(letters, hidden))
    widest = max((sum(n.startswith("...") for n in labels) for labels in inputs), default=0)
    if arrow:
        output = _spelled(_letters(right, subscripts), widest)
        known = {n for labels in inputs for n in labels}
        if len(set(output)) != len(output) or not set(output) <= known:
            raise ShapeError(f"einsum: the result of {subscripts!r} must have labels of the operands, each once")
        if widest and "..." not in right:
            raise ShapeError(f"einsum: the result of {subscripts!r} must have '...', for the axes that it stands for")
        return inputs, output
    everything = [n for labels in inputs for n in labels if not n.startswith("...")]
    once = sorted(n for n in set(everything) if everything.count(n) == 1)
    return inputs, (*_spelled(("...",), widest), *once)


def _letters(text: str, subscripts: str) -> tuple[str, ...]:
    """The labels of one operand as written: letters, and at most one "..."."""
    before, dots, after = text.partition("...")
    wrong = sorted({c for c in before + after if c not in string.ascii_letters})
    if wrong:
        raise ShapeError(
            f"einsum: subscripts are letters, ',', '->' and one '...' per operand, got {wrong[0]!r} in {subscripts!r}"
        )
    return (*before, *([dots] if dots else ()), *after)


def _spelled(letters: Iterable[str], hidden: int) -> tuple[Label, ...]:
    """The labels with one for each of the ``hidden`` axes that Ellipsis stands for, numbered from the last."""
    dots = [f"...{i}" for i in range(hidden)][::-1]
    return tuple(label for letter in letters for label in (dots if letter == "..." else [letter]))


def _check_extents(subscripts: str, tensors: Sequence[Tensor], inputs: Sequence[tuple[Label, ...]]) -> None:
    """Numbers known for one label must be equal, or 1, which broadcasts from one operand to another."""
    known: dict[Label, tuple[int, Tensor]] = {}
    for tensor, labels in zip(tensors, inputs, strict=True):
        for label, extent in zip(labels, tensor.shape, strict=True):
            if not isinstance(extent, int) or (extent == 1 and labels.count(label) == 1):
                continue
            found, other = known.setdefault(label, (extent, tensor))
            if found != extent:
                name = label[:3] if label.startswith("...") else label
                raise ShapeError(
                    f"einsum: {name!r} of {subscripts!r} has extents {found} and {extent}\n"
                    f"  operands:\n    {other.describe()}\n    {tensor.describe()}"
                )


# Products.


def _diagonals(subscripts: str, tensor: Tensor, labels: tuple[Label, ...]) -> _Term:
    """The operand with each label once: a repeated one walks the diagonal of its axes."""
    while len(set(labels)) < len(labels):
        j = next(j for j, label in enumerate(labels) if label in labels[:j])
        i = labels.index(labels[j])
        if tensor.shape[i] != tensor.shape[j]:
            first, second = (i, j) if tensor.shape[i] != 1 else (j, i)
            tensor = with_extent(tensor, first, tensor.shape[second])
        rest = [a for a in range(tensor.ndim) if a not in (i, j)]
        tensor = diagonal(permute_dims(tensor, [*rest, i, j]))
        labels = (*(labels[a] for a in rest), labels[j])
    return _Term(tensor, labels)


def _path(terms: Sequence[_Term], output: Sequence[Label]) -> list[tuple[int, ...]]:
    """Which terms to multiply, step by step: they are taken out, and their product put at the end."""
    names = {label: i for i, label in enumerate(dict.fromkeys(n for t in terms for n in t.labels))}
    if len(terms) < 3 or len(names) > len(string.ascii_letters):
        return [(0, 1)] * (len(terms) - 1)
    every = (*(t.labels for t in terms), output)
    spelled = ["".join(string.ascii_letters[names[n]] for n in labels) for labels in every]
    sizes = dict.fromkeys(names, TYPICAL)
    for label, extent in (pair for t in terms for pair in zip(t.labels, t.tensor.shape, strict=True)):
        if isinstance(extent, int) and extent > 1:
            sizes[label] = extent
    shapes = [
        [1 if extent == 1 else sizes[n] for n, extent in zip(t.labels, t.tensor.shape, strict=True)] for t in terms
    ]
    typical = [np.broadcast_to(0.0, shape) for shape in shapes]
    path = np.einsum_path(f"{','.join(spelled[:-1])}->{spelled[-1]}", *typical, optimize="greedy")[0]
    return [step for step in path[1:] if len(step) > 1]


def _contracted(x: _Term, y: _Term, kept: set[Label]) -> _Term:
    """The product of two terms, summed over the labels that are not kept."""
    x, y = x.summed({*kept, *y.labels}), y.summed({*kept, *x.labels})
    batch = [n for n in x.labels if n in y.labels and n in kept]
    inner = [n for n in x.labels if n in y.labels and n not in kept]
    rows, columns = ([n for n in t.labels if n not in batch and n not in inner] for t in (x, y))
    for label in inner:
        x, y = _agreed(x, y, label)
    labels = (*batch, *rows, *columns)
    if not inner:
        return _Term(x.ordered(labels) * y.ordered(labels), labels)
    if x.tensor.dtype.kind != "f" or not (rows or columns):
        both = (*labels, *inner)
        products = x.ordered(both) * y.ordered(both)
        return _Term(reduce.sum(products, tuple(range(len(labels), len(both)))), labels)
    left = _merged(x, batch, rows, inner)
    right = _merged(y, batch, inner, columns)
    found = matmul(left, right)
    shape = (*found.shape[: len(batch)], *map(x.extent, rows), *map(y.extent, columns))
    return _Term(reshape(found, shape), labels)


def _agreed(x: _Term, y: _Term, label: Label) -> tuple[_Term, _Term]:
    """Both with one extent for a label that is summed over: one written 1 is repeated, all else must be equal."""
    mine, other = x.extent(label), y.extent(label)
    if mine == other:
        return x, y
    if mine == 1:
        return _Term(with_extent(x.tensor, x.labels.index(label), other), x.labels), y
    if other == 1:
        return x, _Term(with_extent(y.tensor, y.labels.index(label), mine), y.labels)
    pair = [(x.labels.index(label), y.labels.index(label))]
    first, second = agreed(x.tensor, y.tensor, pair, "einsum")
    return _Term(first, x.labels), _Term(second, y.labels)


def _merged(term: _Term, batch: Sequence[Label], *groups: Sequence[Label]) -> Tensor:
    """The term with its batch axes, then one axis for each group."""
    extents = [[term.extent(n) for n in group] for group in (batch, *groups)]
    ordered = term.ordered([*batch, *(n for group in groups for n in group)])
    return reshape(ordered, (*extents[0], *map(product, extents[1:])))
