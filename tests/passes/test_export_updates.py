"""Drawings of training steps: one box for each parameter that an optimiser updates, and nothing lost elsewhere."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_export_drawing import check, programs, scene_of

import graphc
from graphc import export, nn
from graphc.optim import SGD, Adam, Momentum, Optimizer
from passes.export.model import STAGES, picture
from passes.export.render import tooltip
from passes.export.updates import steps


class Averaging(Optimizer):
    """Keeps a mean of past weights and their maximum, which the step itself does not read."""

    def updates(self, step, pairs):
        for g, w in pairs:
            mean, most = step.slot(w, "mean"), step.slot(w, "most")
            yield graphc.assign(mean, 0.9 * mean + 0.1 * w)
            yield graphc.assign(most, graphc.maximum(most, w))
            yield graphc.assign(w, w - step.rate(w.dtype) * g)


class Normalised(Optimizer):
    """Divides by the norm of all gradients: each update waits for every gradient."""

    def updates(self, step, pairs):
        norm = graphc.sqrt(sum((graphc.sum(g * g) for g, _ in pairs[1:]), graphc.sum(pairs[0][0] ** 2)))
        return [graphc.assign(w, w - step.rate(w.dtype) * g / norm) for g, w in pairs]


def network(sizes=(64, 256, 256, 10), kind="class"):
    """A loss, and the network below it."""
    x = graphc.placeholder(("batch", sizes[0]), name="x")
    labels = graphc.placeholder(("batch",), dtype="int64", name="labels")
    layers = [nn.Linear(a, b, name=f"{kind}{i}") for i, (a, b) in enumerate(itertools.pairwise(sizes))]
    parts = [part for layer in layers for part in (layer, nn.relu)][:-1]
    whole = nn.Sequential(*parts)
    return nn.cross_entropy(whole(x), labels), whole


def trained(optimizer):
    loss, _ = network()
    return [loss, optimizer.minimize(loss)]


def by_hand():
    loss, whole = network()
    weights = whole.parameters()
    grads = graphc.gradients(loss, weights)
    return [loss, graphc.group(*[graphc.assign(w, w - 0.1 * g) for w, g in zip(weights, grads, strict=True)])]


def scheduled():
    loss, _ = network((4, 8, 2))
    t = graphc.parameter(0.0, name="t", trainable=False)
    return [loss, Adam(0.1 * 0.9**t).minimize(loss), graphc.assign(t, t + 1)]


def fed_rate():
    loss, _ = network((4, 8, 2))
    return [loss, SGD(graphc.placeholder((), name="rate")).minimize(loss)]


def clipped():
    loss, whole = network((4, 8, 2))
    grads = graphc.gradients(loss, whole.parameters())
    norm = graphc.sqrt(sum((graphc.sum(graphc.square(g)) for g in grads), graphc.constant(0.0)))
    return [loss, norm, Adam().apply((g / norm, w) for g, w in zip(grads, whole.parameters(), strict=True))]


def two_networks():
    (left, _), (right, _) = network((4, 8, 2), "left"), network((4, 8, 2), "right")
    return [left, right, Adam().minimize(left), Momentum(0.1, nesterov=True).minimize(right)]


def slots_fetched():
    loss, _ = network((4, 2))
    update = Adam().minimize(loss)
    return [loss, update, [node.inputs[0] for node in update]]


def lone(**how):
    w = graphc.parameter([1.0, 2.0], **how)
    return Adam().apply([(w * 2.0, w)])


OPTIMIZERS = {"adam": Adam, "momentum": lambda: Momentum(0.1), "sgd": lambda: SGD(0.1)}
CASES = {
    "scheduled": scheduled,
    "fed rate": fed_rate,
    "clipped": clipped,
    "two networks": two_networks,
    "slots fetched": slots_fetched,
    "averaging": lambda: trained(Averaging(0.1)),
    "normalised": lambda: trained(Normalised(0.1)),
    "named": lambda: lone(name="w"),
    "unnamed": lone,
    "not trainable": lambda: lone(trainable=False),
    "constant gradient": lambda: Adam().apply([([1.0, 1.0], graphc.parameter([1.0, 2.0], name="w"))]),
}


def update_boxes(scene):
    return [box for box in scene.sketch.boxes if box.entry.role == "update"]


def said(box):
    return " ".join("".join(text for text, _ in title) for title in box.titles)


def owners(scene):
    """What each update box writes, of that what is trained; boxes that write none are left out."""
    entries = scene.sketch.picture.entries
    written = [[entries[i].node.inputs[0] for i in b.members if entries[i].op == "assign"] for b in update_boxes(scene)]
    trained = [[t.name for t in targets if t.node.attrs["trainable"]] for targets in written]
    return [names for names in trained if names]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_trained_parameter_has_one_update_box(name, stage):
    scene = scene_of(trained(OPTIMIZERS[name]()), stage)
    check(scene)
    assert sorted(owners(scene)) == [[f"class{i}.{part}"] for i in range(3) for part in ("bias", "weight")]
    assert len(update_boxes(scene)) == 6 + (name == "adam")  # and the count of steps
    drawn = [box.entry.name for box in scene.sketch.boxes if box.entry.role == "parameter"]
    assert sorted(drawn) == [f"class{i}.{part}" for i in range(3) for part in ("bias", "weight")]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", CASES)
def test_other_training_steps_are_drawn_without_overlap(name, stage):
    scene = scene_of(CASES[name](), stage)
    check(scene)
    members = [i for box in scene.sketch.boxes for i in box.members]
    assert len(members) == len(set(members))
    inside = set(members)
    for i, entry in enumerate(scene.sketch.picture.entries):
        assert i in inside or entry.op != "assign", "an assignment is missing"


@pytest.mark.parametrize("stage", STAGES)
def test_the_text_formats_have_every_node(stage):
    fetches = trained(Adam())
    count = len(picture(fetches, stage).entries)
    nodes = json.loads(export.json(fetches, stage))["nodes"]
    assert len(nodes) == count
    assert export.networkx(fetches, stage).number_of_nodes() == count
    assert export.dot(fetches, stage).count("[label=") == count
    assert sum(n["op"] == "assign" for n in nodes) == 19
    assert sum(n["role"] == "parameter" for n in nodes) == 19


def test_what_an_optimiser_builds_has_the_role_of_an_update():
    fetches = trained(Adam())
    forward = {n["op"] for n in json.loads(export.json(fetches, "gradient"))["nodes"] if n["role"] == "forward"}
    assert not forward & {"square", "sqrt", "expm1", "assign"}
    places = {str(node.where) for node in fetches[1]}
    assert len(places) == 1
    assert "test_export_updates.py" in places.pop()


def test_the_picture_of_adam_is_hardly_wider_than_that_of_plain_descent():
    plain, adam = scene_of(by_hand()), scene_of(trained(Adam()))
    assert len(adam.sketch.boxes) == len(plain.sketch.boxes) + 1
    assert len(adam.sketch.links) == len(plain.sketch.links)
    assert adam.width < min(1.1 * plain.width, 1900)


def test_an_update_stands_beside_its_gradient():
    scene = scene_of(trained(Adam()))
    boxes = scene.sketch.boxes
    into = [link for link in scene.sketch.links if boxes[link.target].entry.role == "update"]
    assert len(into) == 6
    for link in into:
        assert boxes[link.source].entry.role == "backward"
        below = scene.corners[link.target][1] + boxes[link.target].height
        assert 0 < scene.corners[link.source][1] - below < 80
        middles = [scene.corners[b][0] + boxes[b].width / 2 for b in (link.source, link.target)]
        assert abs(middles[0] - middles[1]) < 30


@pytest.mark.parametrize("stage", STAGES)
def test_the_count_of_steps_is_one_box_without_lines(stage):
    scene = scene_of(trained(Adam()), stage)
    (count,) = [i for i, box in enumerate(scene.sketch.boxes) if said(box) == "step"]
    assert not any(count in (link.source, link.target) for link in scene.sketch.links)
    assert "read by 6 updates" in scene.sketch.boxes[count].lines


def test_labels_are_made_from_the_slots():
    boxes = {said(box): box for box in update_boxes(scene_of(trained(Adam())))}
    box = boxes["Adam update of class1.weight"]
    assert box.lines == ("float32[256, 256]", "writes adam_m, adam_v", "reads step")
    assert "Momentum update of class0.bias" in map(said, update_boxes(scene_of(trained(Momentum(0.1)))))
    (lonely,) = update_boxes(scene_of(CASES["named"]()))
    assert lonely.lines == ("float32[2]", "writes step, adam_m, adam_v")
    averaged = update_boxes(scene_of(trained(Averaging(0.1))))[0]
    assert (said(averaged), averaged.lines[1]) == ("Update of class0.weight", "writes mean, most")


def test_a_summary_lists_its_nodes():
    scene = scene_of(trained(Adam()))
    box = next(box for box in update_boxes(scene) if "class0.weight" in said(box))
    text = tooltip(box, scene)
    assert "parameter 'class0.weight/adam_v'" in text
    assert text.count("\n") >= len(box.members)
    assert text.count("test_export_updates.py") == 1


@pytest.mark.parametrize("make", [by_hand, lambda: trained(SGD(0.1))])
def test_short_updates_say_what_they_compute(make):
    titles = [said(box) for box in update_boxes(scene_of(make()))]
    assert "assign(class2.bias, ·) subtract(class2.bias, ·) multiply(0.1, ·)" in titles
    assert len(titles) == 6


def test_slots_read_elsewhere_are_drawn():
    loss, _ = network((4, 2))
    update = Momentum(0.1).minimize(loss)
    slot = next(node.inputs[0] for node in update if not node.inputs[0].node.attrs["trainable"])
    scene = scene_of([loss, update, graphc.sum(slot)])
    check(scene)
    assert slot.name in {box.entry.name for box in scene.sketch.boxes}


def test_steps_depend_on_structure_alone():
    drawn = picture(two_networks(), "gradient")
    found = steps(drawn)
    assert [step.owner is None for step in found].count(True) == 1  # Adam's count; momentum shares nothing
    members = [i for step in found for i in step.members]
    assert len(members) == len(set(members))
    inside = set(members)
    for edge in drawn.edges:
        assert edge.source not in inside or edge.target in inside, "a step's node is read outside the steps"


def test_drawings_of_training_steps_are_the_same_every_time():
    first, second = (export.html(trained(Adam()), "kernels") for _ in range(2))
    assert first == second


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(programs(), st.sampled_from([*OPTIMIZERS, "averaging", "normalised"]), st.sampled_from([0, 3, 9]))
def test_random_training_steps_are_drawn_without_overlap(fetches, name, chunk):
    optimizer = {**OPTIMIZERS, "averaging": lambda: Averaging(0.1), "normalised": lambda: Normalised(0.1)}[name]()
    tensors = [item for item in fetches if not isinstance(item, graphc.Update)]
    scene = scene_of([*tensors, optimizer.minimize(tensors[0])], chunk=chunk)
    check(scene)
    assert all(scene.sketch.groups), "an empty kernel"
