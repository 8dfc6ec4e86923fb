"""Drawings of graphs: nothing missing, nothing overlapping, readable flow."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import graphc
from graphc import export
from passes.export import ordering
from passes.export.cells import Arrow, Cell
from passes.export.compose import Scene, compose
from passes.export.layering import layer
from passes.export.measure import MONO, mono_width, sans_width
from passes.export.model import describe, flatten, picture
from passes.export.render import svg as render
from passes.export.sketch import sketch
from passes.gradient import expand_gradients


def example():
    x = graphc.placeholder((2, 2), name="x")
    y = x + 1
    out = graphc.mean(2 * y**2)
    return [out, graphc.gradients(out, x)]


def mlp():
    x = graphc.placeholder(("batch", 64), name="x")
    labels = graphc.placeholder(("batch",), dtype="int64", name="labels")
    parameters, h = [], x
    for i, (rows, columns) in enumerate([(64, 128), (128, 64), (64, 10)]):
        w = graphc.parameter(graphc.init.he_normal(), shape=(rows, columns), name=f"w{i}")
        b = graphc.parameter(graphc.init.zeros(), shape=(columns,), name=f"b{i}")
        parameters += [w, b]
        h = h @ w + b
        h = graphc.relu(h) if i < 2 else h
    picked = graphc.sum(graphc.where(graphc.one_hot(labels, 10, "bool"), h, 0.0), -1)
    loss = graphc.mean(graphc.logsumexp(h, -1) - picked)
    grads = graphc.gradients(loss, parameters)
    return {
        "loss": loss,
        "train": graphc.group(*[graphc.assign(p, p - 0.1 * g) for p, g in zip(parameters, grads, strict=True)]),
    }


def scene_of(fetches, stage="gradient", chunk=0):
    """The scene of ``fetches``; with ``chunk``, every so many nodes in topological order make a kernel."""
    if not chunk:
        return compose(sketch(picture(fetches, stage)))
    graph = expand_gradients(flatten(fetches))
    nodes = [n for n in graph.nodes if n.inputs and n.outputs]
    kernels = [
        SimpleNamespace(label=f"kernel {i}", nodes=tuple(nodes[i : i + chunk])) for i in range(0, len(nodes), chunk)
    ]
    return compose(sketch(describe(graph, "kernels", kernels)))


@dataclass(frozen=True)
class Rect:
    x: float
    y: float
    w: float
    h: float

    def meets(self, other):
        apart = (
            self.x + self.w <= other.x
            or other.x + other.w <= self.x
            or self.y + self.h <= other.y
            or other.y + other.h <= self.y
        )
        return not apart

    def contains(self, other):
        return (
            self.x <= other.x
            and self.y <= other.y
            and self.x + self.w >= other.x + other.w
            and self.y + self.h >= other.y + other.h
        )


def rects(scene: Scene):
    boxes = [Rect(*corner, b.width, b.height) for b, corner in zip(scene.sketch.boxes, scene.corners, strict=True)]
    frames = [Rect(f.x, f.y, f.width, f.height) for f in scene.frames]
    return boxes, frames


def check_places(scene: Scene):
    boxes, frames = rects(scene)
    for i, box in enumerate(boxes):
        assert box.x >= -0.01
        assert box.y >= -0.01
        assert box.x + box.w <= scene.width + 0.2
        assert box.y + box.h <= scene.height + 0.2
        for other in boxes[:i]:
            assert not box.meets(other)
        for g, frame in enumerate(frames):
            inside = scene.sketch.boxes[i].group == g
            assert frame.contains(box) if inside else not frame.meets(box)
    for i, frame in enumerate(frames):
        assert not any(frame.meets(other) for other in frames[:i])


def check_routes(scene: Scene):
    boxes, frames = rects(scene)
    for line in scene.lines:
        source, target = scene.sketch.boxes[line.link.source], scene.sketch.boxes[line.link.target]
        own = source.group if source.group == target.group else None
        assert len(line.points) >= 2
        for (ax, ay), (bx, by) in itertools.pairwise(line.points):
            assert ax == pytest.approx(bx) or ay == pytest.approx(by), "pieces are axis-parallel"
            piece = Rect(min(ax, bx) - 0.05, min(ay, by) + 0.3, abs(ax - bx) + 0.1, abs(ay - by) - 0.6)
            if ay == pytest.approx(by):
                piece = Rect(min(ax, bx), ay - 0.05, abs(ax - bx), 0.1)
            elif piece.h <= 0:
                continue
            assert not any(piece.meets(box) for box in boxes), "a line runs through a box"
            for g, frame in enumerate(frames):
                if g not in (own, source.group, target.group):
                    assert not piece.meets(frame), "a line runs through a kernel it has nothing to do with"


def check_ends(scene: Scene):
    """Every line starts at the border of its source and ends at that of its target, or at their frames."""
    boxes, frames = rects(scene)
    for line in scene.lines:
        for point, b in ((line.points[0], line.link.source), (line.points[-1], line.link.target)):
            candidates = [boxes[b], *frames]
            assert any(
                r.x <= point[0] <= r.x + r.w and (abs(point[1] - r.y) < 0.2 or abs(point[1] - r.y - r.h) < 0.2)
                for r in candidates
            )


def check(scene: Scene):
    check_places(scene)
    check_routes(scene)
    check_ends(scene)


@st.composite
def programs(draw):
    """Random graphs: elementwise ops, matrix products and views over a few leaves, with or without gradients."""
    x = graphc.placeholder(("n", 4), name="x")
    leaves = [graphc.parameter([[0.5] * 4] * 4, name=f"w{i}") for i in range(draw(st.integers(1, 3)))]
    tensors = [x, x * 0.5, *(x @ w for w in leaves)]
    for _ in range(draw(st.integers(0, 14))):
        a, b = (tensors[draw(st.integers(0, len(tensors) - 1))] for _ in range(2))
        kind = draw(st.integers(0, 6))
        tensors.append(
            [
                lambda a=a, b=b: a + b, lambda a=a, b=b: a * b, lambda a=a: graphc.relu(a),
                lambda a=a: graphc.tanh(a) * 2, lambda a=a: a @ leaves[0], lambda a=a: graphc.softmax(a),
                lambda a=a: a - graphc.mean(a, -1, keepdims=True),
            ][kind]()
        )  # fmt: skip
    loss = graphc.mean(sum(tensors[1:], tensors[0]))
    if not draw(st.booleans()):
        return [loss, *tensors[-1:]]
    grads = graphc.gradients(loss, leaves, unreachable="zero")
    if not draw(st.booleans()):
        return [loss, grads]
    return [loss, graphc.group(*[graphc.assign(w, w - 0.1 * g) for w, g in zip(leaves, grads, strict=True)])]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(programs(), st.sampled_from([0, 2, 3, 7]))
def test_random_graphs_are_drawn_without_overlap(fetches, chunk):
    scene = scene_of(fetches, chunk=chunk)
    check(scene)
    ElementTree.fromstring(render(scene))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(programs(), st.randoms(use_true_random=False))
def test_kernels_whose_condensed_graph_has_cycles_are_still_drawn(fetches, random):
    graph = expand_gradients(flatten(fetches))
    nodes = [n for n in graph.nodes if n.inputs and n.outputs]
    random.shuffle(nodes)
    kernels = [SimpleNamespace(label=f"k{i}", nodes=tuple(nodes[i::3])) for i in range(3)]
    check(compose(sketch(describe(graph, "kernels", kernels))))


@pytest.mark.parametrize("chunk", [0, 4, 9])
@pytest.mark.parametrize("make", [example, mlp])
def test_examples_are_drawn_without_overlap(make, chunk):
    check(scene_of(make(), chunk=chunk))


@pytest.mark.parametrize("stage", ["optimized", "kernels"])
@pytest.mark.parametrize("make", [example, mlp])
def test_compiled_stages_are_drawn(make, stage):
    check(scene_of(make(), stage))


def test_every_kernel_is_drawn_with_its_nodes():
    scene = scene_of(mlp(), "kernels")
    drawn = scene.sketch.picture
    assert len(scene.frames) == len(drawn.groups) > 0
    assert all(scene.sketch.groups)


@pytest.mark.parametrize("depth", [3, 6])
def test_a_tree_has_no_crossings(depth):
    level = [graphc.placeholder((2,), name=f"x{i}") for i in range(2**depth)]
    while len(level) > 1:
        level = [a + b for a, b in zip(level[::2], level[1::2], strict=True)]
    drawn = sketch(picture(level[0], "graph"))
    cells = [Cell(b.width, b.height) for b in drawn.boxes]
    arrows = [Arrow(li.source, li.target, li.key) for li in drawn.links]
    rows, loose = layer(cells, arrows)
    slots = ordering.build(0, cells, arrows, rows, loose)
    ordering.order(slots, max(rows) + 1)
    assert ordering.count_crossings(slots, slots.rows) == 0
    assert max(rows) == depth


def test_text_fits_its_box():
    long = graphc.placeholder(("a_rather_long_extent", "another_long_extent", 123456), name="W" * 60)
    for scene in (scene_of(mlp()), scene_of(long * 1.5e-30, "graph"), scene_of(mlp(), "graph")):
        root = ElementTree.fromstring(render(scene))
        widths = {b.width for b in scene.sketch.boxes}
        assert widths
        for box, group in zip(scene.sketch.boxes, _box_groups(root), strict=True):
            for text in group.iter("{http://www.w3.org/2000/svg}text"):
                size = float(text.get("font-size"))
                content = "".join(text.itertext())
                measure = mono_width if text.get("font-family") == MONO else sans_width
                assert measure(content, size) <= box.width - 8


def _box_groups(root):
    """The elements of the boxes: groups whose first child is a title."""
    tag = "{http://www.w3.org/2000/svg}"
    return [g for g in root.iter(f"{tag}g") if len(g) and g[0].tag == f"{tag}title"]


# Advance widths of DejaVu Sans Bold in 2048ths of an em: a wide text font, which the estimate must cover.
_BOLD = dict(zip("aegimotwAMWO0(), ._·→…", [
    1382, 1389, 1466, 702, 2134, 1407, 979, 1892, 1585, 2038, 2259, 1741, 1425, 936, 936, 778,
    713, 778, 1024, 778, 1716, 2048,
], strict=True))  # fmt: skip


def test_widths_are_estimated_on_the_safe_side():
    for character, advance in _BOLD.items():
        assert sans_width(character, 1.0) >= advance / 2048


def test_two_thousand_nodes():
    x = graphc.placeholder((4,), name="x")
    tensors = [x]
    for i in range(2000):
        a, b = tensors[-1 - i % 7 % len(tensors)], tensors[-1 - i % 11 % len(tensors)]
        tensors.append(a + b if i % 3 else graphc.exp(a))
    scene = scene_of(tensors[-1], "graph")
    assert len(scene.sketch.boxes) == len(picture(tensors[-1], "graph").entries)
    root = ElementTree.fromstring(render(scene))
    assert len(_box_groups(root)) == len(scene.sketch.boxes)
    rows = {}
    for box, (left, top) in zip(scene.sketch.boxes, scene.corners, strict=True):
        rows.setdefault(top + box.height / 2, []).append((left, left + box.width))
    for spans in rows.values():
        spans.sort()
        assert all(a[1] < b[0] for a, b in itertools.pairwise(spans))


def test_a_long_chain_is_drawn():
    t = graphc.placeholder((2,), name="x")
    for _ in range(3_000):
        t = graphc.exp(t)
    assert len(_box_groups(ElementTree.fromstring(export.svg(t)))) == 3_001


def test_scalars_and_parameters_read_again_are_in_the_labels():
    root = ElementTree.fromstring(export.svg(mlp(), "gradient"))
    said = ["".join(t.itertext()) for t in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "multiply(0.1, ·)" in said
    assert "matmul(·, w1.T)" in said
    assert "assign(b2, ·)" in said
    assert sum(s.startswith("w1 ") for s in said) == 1


def test_unnamed_and_fetched_leaves_have_boxes():
    p = graphc.parameter([1.0, 2.0])
    scene = scene_of([p, graphc.constant(3.0), graphc.assign(p, p * 2)], "graph")
    assert [b.entry.op for b in scene.sketch.boxes] == ["parameter", "constant", "multiply", "assign"]
    check(scene)


def test_forward_flows_down_and_backward_up():
    scene = scene_of(mlp())
    boxes = scene.sketch.boxes
    assert {b.band for b in boxes} == {0, 1}
    for line in scene.lines:
        a, b = line.link.source, line.link.target
        if boxes[a].band == boxes[b].band and not line.link.seed:
            up = scene.corners[a][1] > scene.corners[b][1]
            assert up == (boxes[a].band == 1)
    right = max(x + b.width for b, (x, _) in zip(boxes, scene.corners, strict=True) if b.band == 0)
    assert all(x > right for b, (x, _) in zip(boxes, scene.corners, strict=True) if b.band == 1)


def test_second_derivatives_and_several_losses_are_drawn():
    x = graphc.placeholder((3,), name="x")
    w = graphc.parameter([1.0, 2.0, 3.0], name="w")
    y = graphc.sum(graphc.tanh(x * w))
    (g,) = graphc.gradients(y, [w])
    (h,) = graphc.gradients(graphc.sum(graphc.square(g)), [w])
    for stage in ("graph", "gradient"):
        check(scene_of({"y": y, "g": g, "h": h, "u": graphc.assign(w, w - h)}, stage))
