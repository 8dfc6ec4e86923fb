"""Random programs, drawn by Hypothesis from the op registry itself: an op that is new there takes part at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from random_programs import Feed, M, N, Program, extents, source

from graphc.dims import Extent, product
from graphc.node import Tensor
from graphc.opdef import OPS, Kind, OpDef
from passes.graph import topological

FLOATS = ("float32", "float32", "float32", "float64")
DTYPES = (*FLOATS, "int32", "bool", "int64", "uint8", "int8", "uint32")
EXTENTS: tuple[Extent, ...] = (3, N, 1, 2, M)
SIZES = ((3, 2), (1, 5), (7, 1), (0, 3), (2, 0), (9, 4), (257, 3), (5, 33), (1, 1))
# What is not an op of its own, and what needs more than its inputs.
FUNCTIONS = ("mean", "argmax", "argmin", "small_pow", "gradient", "gradient", "gradient")
MODES = ("plain", "plain", "plain", "steps", "special")


class _Drawing:
    """The state of one drawing."""

    def __init__(self, draw: Callable[[Any], Any]) -> None:
        self.draw = draw
        self.program = Program()

    def pick(self, options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def chance(self, percent: int) -> bool:
        return self.draw(st.integers(0, 99)) >= 100 - percent

    # Shapes.

    def shape(self) -> tuple[Extent, ...]:
        return tuple(self.pick(EXTENTS) for _ in range(self.draw(st.sampled_from((1, 2, 2, 3, 0)))))

    def value(self, extent: Extent) -> Extent:
        """What an extent is known to be equal to: n and m may be tied to each other or to a number."""
        fixed = self.program.fixed
        return fixed.get(extent, extent)

    def fits(self, a: tuple[Extent, ...], b: tuple[Extent, ...]) -> bool:
        pairs = zip(a[::-1], b[::-1], strict=False)
        return all(x == 1 or y == 1 or self.value(x) == self.value(y) for x, y in pairs)

    def static(self, shape: tuple[Extent, ...]) -> bool:
        return all(isinstance(e, int) for e in shape)

    # Leaves.

    def leaf(self, dtype: str, shape: tuple[Extent, ...], low: float = -2.0, high: float = 2.0) -> Tensor:
        program = self.program
        mode = self.pick(MODES)
        what = self.pick(("placeholder", "parameter", "constant")) if self.static(shape) else "placeholder"
        feed = Feed(shape, dtype, low, high, mode)
        if what == "placeholder":
            tensor = program.add(f"gc.placeholder({extents(shape)}, {dtype!r}, name='t{len(program.tensors)}')")
            program.feeds[tensor] = feed
            return tensor
        values = source(feed.array((1, 1), [99, len(program.tensors)]))
        if what == "constant" and low < 0 and self.chance(30):
            values = f"full({extents(shape)}, {self.pick((1, 0, 2, 3, -0.0))}).astype({dtype!r})"
        tensor = program.add(f"gc.{what}(np.{values})")
        if what == "parameter" and low < 0:  # an index stays what it is
            program.parameters.append(tensor)
        return tensor

    def existing(self, accept: Callable[[Tensor], bool]) -> Tensor | None:
        found = [t for t in reversed(self.program.tensors) if accept(t)]
        if not found:
            return None
        among = min(len(found), 4) if self.chance(60) else len(found)  # the newest come first
        return found[self.draw(st.integers(0, among - 1))]

    def tensor(self, kinds: str, rank: int = 0, accept: Callable[[Tensor], bool] = lambda t: True) -> Tensor:
        """A tensor of one of these dtype kinds: one that is there, or a new leaf."""
        found = self.existing(lambda t: t.dtype.kind in kinds and t.ndim >= rank and accept(t))
        if found is not None and not self.chance(10):
            return found
        dtype = self.pick([d for d in DTYPES if np.dtype(d).kind in kinds])
        shape = self.shape()
        return self.leaf(dtype, shape if len(shape) >= rank else (3, N, 2)[:rank])

    def partner(self, x: Tensor, kinds: str, dtype: str | None) -> Tensor:
        """A tensor that broadcasts with ``x``."""
        fitting = [d for d in DTYPES if np.dtype(d).kind in kinds and dtype in (None, d)] or [dtype]
        found = self.existing(lambda t: str(t.dtype) in fitting and self.fits(t.shape, x.shape))
        if found is not None and self.chance(70):
            return found
        start = self.draw(st.integers(0, x.ndim))
        shape = tuple(1 if self.chance(20) else e for e in x.shape[start:])
        return self.leaf(self.pick(fitting), shape)

    def tame(self, x: Tensor, op: OpDef) -> Tensor:
        """Mostly inside the op's domain, so that not everything becomes NaN."""
        low, high = op.domain.low, op.domain.high
        if x.dtype.kind != "f" or self.chance(15):
            return x
        if low <= -2 and high >= 2:
            return self.program.add(f"gc.tanh({self.program.name(x)})") if self.chance(30) else x
        return self.program.add(f"gc.sigmoid({self.program.name(x)}) * {high - low} + {low}")

    # Lines.

    def line(self) -> None:
        names = [
            n for n, o in OPS.items() if o.kind not in (Kind.LEAF, Kind.TRANSFORM, Kind.UPDATE) and n != "gemm_add"
        ]
        name = self.pick([*names, *FUNCTIONS])
        if name in FUNCTIONS:
            getattr(self, f"line_{name}")()
            return
        op = OPS[name]
        special = getattr(self, f"line_{name}", None) or getattr(self, f"line_{op.kind.value}", None)
        if special is not None:
            special(op)
        else:
            self.generic(op)

    def generic(self, op: OpDef) -> None:
        """By the public function of the op's name, or one of its samples."""
        first: dict[str, Tensor] = {}
        inputs: list[Tensor] = []
        for kinds in op.domain.kinds:
            same = first.get(kinds)
            x = (
                self.tensor(kinds, op.domain.rank)
                if not inputs
                else self.partner(_widest(inputs), kinds, None if same is None else str(same.dtype))
            )
            first.setdefault(kinds, x)
            inputs.append(self.tame(x, op))
        self.program.nonempty |= not op.domain.empty
        call = (
            f"OPS[{op.name!r}].samples[{self.draw(st.integers(0, len(op.samples) - 1))}]"
            if op.samples
            else f"ops.{op.name}"
        )
        self.program.add(f"{call}({', '.join(self.program.name(t) for t in inputs)})")

    line_scalar = generic

    def line_astype(self, op: OpDef) -> None:
        x = self.tensor("fiub")
        self.program.add(f"gc.astype({self.program.name(x)}, {self.pick(DTYPES)!r})")

    def line_check_index(self, op: OpDef) -> None:
        x = self.leaf(self.pick(("int32", "int64", "uint8")), self.shape(), 0, 2)
        self.program.add(f"ops.check_index({self.program.name(x)}, 3)")

    def line_arange(self, op: OpDef) -> None:
        known = {str(e) for t in self.program.feeds for e in t.shape if not isinstance(e, int)}
        extent = self.pick([*sorted(known), "3", "1"])
        self.program.add(f"gc.arange({extent}, {self.pick(DTYPES)!r})")

    def line_broadcast_to(self, op: OpDef) -> None:
        x = self.tensor("fiub", accept=lambda t: t.ndim < 4)
        shape = [self.pick((3, 2)) if e == 1 and self.chance(70) else e for e in x.shape]
        shape = [self.pick((2, 3, 1)), *shape] if self.chance(50) and x.ndim < 3 else shape
        self.program.add(f"gc.broadcast_to({self.program.name(x)}, {extents(tuple(shape))})")

    def line_permute_dims(self, op: OpDef) -> None:
        x = self.tensor("fiub", 2)
        axes = self.draw(st.permutations(range(x.ndim)))
        self.program.add(f"gc.permute_dims({self.program.name(x)}, {tuple(axes)})")

    def line_expand_dims(self, op: OpDef) -> None:
        x = self.tensor("fiub", accept=lambda t: t.ndim < 4)
        self.program.add(f"gc.expand_dims({self.program.name(x)}, {self.draw(st.integers(0, x.ndim))})")

    def line_squeeze(self, op: OpDef) -> None:
        x = self.existing(lambda t: any(self.value(e) == 1 for e in t.shape))
        if x is None:
            return
        axis = self.pick([i for i, e in enumerate(x.shape) if self.value(e) == 1])
        self.program.add(f"gc.squeeze({self.program.name(x)}, {axis})")

    def line_reshape(self, op: OpDef) -> None:
        x = self.tensor("fiub", 1)
        factors: list[Extent] = [*self.draw(st.permutations(x.shape))]
        if self.chance(50) and len(factors) > 1:
            factors = [product(factors[:2]), *factors[2:]]
        elif self.chance(30):
            factors = [1, *factors]
        self.program.add(f"gc.reshape({self.program.name(x)}, {extents(tuple(factors))})")

    def line_reduce(self, op: OpDef) -> None:
        self.reduction(op.name, "fiu", not op.domain.empty)

    def line_mean(self) -> None:
        self.reduction("mean", "fiu", False)

    def reduction(self, name: str, kinds: str, nonempty: bool) -> None:
        x = self.tensor(kinds, 1)
        axes = tuple(i for i in range(x.ndim) if self.chance(55)) or (x.ndim - 1,)
        self.program.nonempty |= nonempty
        self.program.add(f"gc.{name}({self.program.name(x)}, {axes}, keepdims={self.chance(40)})")

    def line_argmax(self, name: str = "argmax") -> None:
        x = self.tensor("fiu", 1)
        self.program.nonempty = True
        axis = self.draw(st.integers(0, x.ndim - 1))
        self.program.add(f"gc.{name}({self.program.name(x)}, {axis}, keepdims={self.chance(30)})")

    def line_argmin(self) -> None:
        self.line_argmax("argmin")

    def line_small_pow(self) -> None:
        x = self.tensor("fiu")
        self.program.add(f"{self.program.name(x)} ** {self.pick((2, 3, 1, 4, 0))}")

    def line_matmul(self, op: OpDef) -> None:
        x = self.tensor("f", 1, lambda t: t.ndim <= 3)
        inner = self.value(x.shape[-1])

        def fits(t: Tensor) -> bool:
            if t.dtype != x.dtype or not 1 <= t.ndim <= 3:
                return False
            return self.value(t.shape[max(t.ndim - 2, 0)]) == inner and self.fits(t.shape[:-2], x.shape[:-2])

        y = self.existing(fits)
        if y is None or self.chance(20):
            y = self.leaf(str(x.dtype), (x.shape[-1], self.pick(EXTENTS)))
        self.program.add(f"gc.matmul({self.program.name(x)}, {self.program.name(y)})")

    def line_composite(self, op: OpDef) -> None:
        if op.domain.kinds != ("f",) or op.samples == () or op.name not in ("softmax", "log_softmax", "logsumexp"):
            self.generic(op)
            return
        x = self.tensor("f", 1)
        self.program.nonempty = True
        keep = f", keepdims={self.chance(40)}" if op.name == "logsumexp" else ""
        self.program.add(f"gc.{op.name}({self.program.name(x)}, {self.draw(st.integers(-1, x.ndim - 1))}{keep})")

    def line_one_hot(self, op: OpDef) -> None:
        shape = self.shape()[:2]
        x = self.leaf(self.pick(("int32", "int64", "uint8")), shape, 0, 2)
        self.program.add(f"gc.one_hot({self.program.name(x)}, 3, {self.pick(DTYPES)!r})")

    # Gradients, updates, and what is fetched.

    def line_gradient(self) -> None:
        program = self.program
        y = self.existing(lambda t: t.dtype.kind == "f" and bool(t.node.inputs))
        if y is None or program.gradients >= 3:
            return
        floats = [t for t in program.tensors if t.dtype.kind == "f" and t is not y]
        if not floats:
            return
        program.gradients += 1
        name = program.name(y)
        loss = self.pick(
            (f"gc.sum({name})", f"gc.sum(gc.tanh({name}))", f"gc.sum(gc.square({name}))", f"gc.mean({name})")
        )
        wanted = [floats[self.draw(st.integers(0, len(floats) - 1))] for _ in range(self.pick((1, 2, 3)))]
        wanted = list(dict.fromkeys(wanted))
        names = ", ".join(map(program.name, wanted))
        program.add_all(f"gc.gradients({loss}, [{names}], unreachable='zero')", len(wanted))

    def updates(self) -> None:
        program = self.program
        chosen: list[str] = []
        for p in list(program.parameters):
            if not self.chance(70):
                continue

            def fits(t: Tensor, p: Tensor = p) -> bool:
                return t.dtype == p.dtype and t.ndim == p.ndim and self.same(t.shape, p.shape)

            v = self.existing(fits) if self.chance(50) else self.existing(
                lambda t, p=p: t.dtype == p.dtype and self.fits(t.shape, p.shape) and t.ndim <= p.ndim
                and self.static(t.shape) and _broadcasts(t.shape, p.shape)
            )  # fmt: skip
            name = program.name(p)
            if v is None:
                continue
            value = program.name(v)
            form = (
                self.pick(("{v}", "{p} - {v}", "{p} - 0.1 * {v}", "{v} + {p} * {v}")) if p.dtype.kind == "f" else "{v}"
            )
            if not self.same(v.shape, p.shape) or v.ndim != p.ndim:
                form = "{p} - {v}" if p.dtype.kind in "fiu" else ""
            if form:
                new = program.add(form.format(p=name, v=value)) if form != "{v}" else v
                chosen.append(f"gc.assign({name}, {program.name(new)})")
        if chosen:
            line = f"gc.group({', '.join(chosen)})"
            program.lines.append(f"update = {line}")
            program.update = program.value_of(line)

    def same(self, a: tuple[Extent, ...], b: tuple[Extent, ...]) -> bool:
        return len(a) == len(b) and all(self.value(x) == self.value(y) for x, y in zip(a, b, strict=True))

    def finish(self) -> None:
        program = self.program
        self.updates()
        read = {x for t in program.tensors for x in t.node.inputs}
        candidates = list(reversed(program.tensors))
        program.fetches = [t for t in candidates if t not in read and t.node.inputs][: self.pick((3, 1, 6))]
        program.fetches = program.fetches or candidates[:1]
        for _ in range(self.pick((1, 2, 0, 4))):
            program.fetches.append(candidates[self.draw(st.integers(0, len(candidates) - 1))])
        # Every extent must be known from something that is fed.
        reached = {node.outputs[0] for node in topological([t.node for t in program.fetches])}
        for symbol in (N, M):
            binding = [t for t, f in program.feeds.items() if symbol in f.shape]
            program.fetches += [] if reached & set(binding) else binding[:1]
        runs = []
        for _ in range(2):
            n, m = self.pick([s for s in SIZES if 0 not in s] if program.nonempty else SIZES)
            n = program.fixed.get(N, n)
            m = program.fixed.get(M, m)
            runs.append((n if isinstance(n, int) else m, m))
        program.sizes = tuple(runs)


def _widest(inputs: list[Tensor]) -> Tensor:
    return max(inputs, key=lambda t: t.ndim)


def _broadcasts(a: tuple[Extent, ...], to: tuple[Extent, ...]) -> bool:
    return all(x in (1, y) for x, y in zip(a[::-1], to[::-1], strict=False))


@st.composite
def programs(draw: Callable[[Any], Any], most: int = 25) -> Program:
    """A program of up to about ``most`` lines, with feeds for two runs."""
    drawing = _Drawing(draw)
    tie = draw(st.sampled_from(("none", "none", "none", "n=m", "m=3", "m=1")))
    drawing.program.fixed = {"none": {}, "n=m": {N: M}, "m=3": {M: 3}, "m=1": {M: 1}}[tie]
    for _ in range(draw(st.integers(1, 3))):
        drawing.leaf(drawing.pick(DTYPES), drawing.shape())
    for _ in range(draw(st.integers(2, most))):
        drawing.line()
    drawing.finish()
    return drawing.program
