"""The formats in which a graph is exported: complete, well-formed, the same every time."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

import graphc
from graphc import export
from graphc.errors import DataError, FetchError
from passes.export.model import describe, flatten, picture
from passes.export.text import dot, to_json
from passes.gradient import expand_gradients

TEXT_FORMATS = (export.dot, export.mermaid, export.json, export.svg, export.html)


def example():
    x = graphc.placeholder((2, 2), name="x")
    y = x + 1
    out = graphc.mean(2 * y**2)
    return [out, graphc.gradients(out, x)]


def step():
    """One training step of a linear model."""
    x = graphc.placeholder(("batch", 3), name="x")
    w = graphc.parameter(graphc.init.he_normal(), shape=(3, 2), name="w")
    b = graphc.parameter([0.0, 0.0], name="b")
    loss = graphc.mean(graphc.square(x @ w + b - 1.0))
    grads = graphc.gradients(loss, [w, b])
    return {
        "loss": loss,
        "train": graphc.group(*[graphc.assign(p, p - 0.1 * g) for p, g in zip([w, b], grads, strict=True)]),
    }


@pytest.mark.parametrize("make", [example, step])
@pytest.mark.parametrize("stage", ["graph", "gradient"])
def test_formats_are_the_same_every_time(make, stage):
    def texts():
        return [function(fetches, stage) for fetches in [make()] for function in TEXT_FORMATS]

    assert texts() == texts()


def test_a_path_receives_the_text(tmp_path):
    loss = example()[0]
    for function in TEXT_FORMATS:
        path = tmp_path / function.__name__
        assert function(loss, path=path) == path.read_text(encoding="utf-8")
    export.networkx(loss, path=tmp_path / "graph.json")
    assert json.loads((tmp_path / "graph.json").read_text(encoding="utf-8"))["directed"] is True


def test_svg_is_valid_and_escapes_names():
    name = "a<b>&\"c'\x07 ]]> \\ 数据"
    x = graphc.placeholder((2,), name=name)
    root = ElementTree.fromstring(export.svg(x + 1))
    titles = [t.text for t in root.iter("{http://www.w3.org/2000/svg}title")]
    assert any("a<b>&" in (t or "") and "数据" in (t or "") for t in titles)


def test_html_embeds_no_markup_from_names():
    class Scripts(HTMLParser):
        count = 0

        def handle_starttag(self, tag, attrs):
            self.count += tag == "script"

    x = graphc.placeholder((2,), name="</script><script>alert(1)</script><!--<script>")
    parser = Scripts()
    parser.feed(export.html(x + 1))
    assert parser.count == 1
    assert "http" not in export.html(x + 1).replace("http://www.w3.org/2000/svg", "")


def test_a_notebook_shows_the_drawing():
    x = graphc.placeholder((2,), name="x")
    y = x + 1
    assert y._repr_html_() == export.svg(y)


@pytest.mark.parametrize("stage", ["graph", "gradient"])
def test_json_holds_every_node(stage):
    fetches = step()
    document = json.loads(export.json(fetches, stage))
    drawn = picture(fetches, stage)
    assert document["format"] == "graphc.graph"
    assert document["stage"] == stage
    assert [n["id"] for n in document["nodes"]] == [f"n{i}" for i in range(len(drawn.graph.nodes))]
    for found, node in zip(document["nodes"], drawn.graph.nodes, strict=True):
        assert found["op"] == node.op.name
        assert found["name"] == node.name
        assert found["where"] == str(node.where)
        assert [i["node"] for i in found["inputs"]] == [f"n{drawn.index[t.node]}" for t in node.inputs]
        if node.results:
            assert found["dtype"] == str(node.results[0].dtype)
            assert found["shape"] == [e if isinstance(e, int) else str(e) for e in node.results[0].shape]
    roles = {n["role"] for n in document["nodes"]}
    assert roles == {"placeholder", "parameter", "constant", "forward", "backward", "update"}
    assert len(document["updates"]) == 2
    assert sum(n["loss"] for n in document["nodes"]) == 1


def test_json_numbers_anonymous_extents_in_order():
    x, y = graphc.placeholder((None, 3)), graphc.placeholder((None,))
    shapes = [n["shape"] for n in json.loads(export.json([x, y]))["nodes"]]
    assert shapes == [["?0", 3], ["?1"]]


def test_json_has_no_nan_and_names_groups():
    document = export.json(graphc.placeholder((2,)) * float("nan"))
    assert json.loads(document, parse_constant=lambda c: pytest.fail(c))
    fetches = example()
    graph = expand_gradients(flatten(fetches))
    kernel = SimpleNamespace(label="all", nodes=tuple(n for n in graph.nodes if n.inputs))
    (group,) = json.loads(to_json(describe(graph, "kernels", [kernel])))["groups"]
    assert group["label"] == "all"
    assert len(group["nodes"]) == len(kernel.nodes)


def test_networkx_has_the_attributes():
    x = graphc.placeholder((2, 3), name="x")
    graph = export.networkx(x * x + graphc.sum(x))
    assert set(graph.nodes) == {"n0", "n1", "n2", "n3"}
    data = graph.nodes["n0"]
    assert (data["op"], data["name"], data["shape"], data["dtype"], data["role"]) == (
        "placeholder",
        "x",
        (2, 3),
        "float32",
        "placeholder",
    )
    assert "test_export.py" in data["where"]
    assert graph.edges["n0", "n1"]["input"] == 0
    assert graph.edges["n0", "n1"]["inputs"] == (0, 1)
    assert graph.edges["n2", "n3"]["input"] == 1


_DOT_STRING = r'"(?:[^"\\]|\\.)*"'


def test_dot_is_well_formed():
    x = graphc.placeholder((2,), name='say "hi"\\\n')
    text = export.dot([x + 1, graphc.mean(x)])
    body = re.sub(_DOT_STRING, "S", text)
    assert '"' not in body
    assert body.count("{") == body.count("}") == 1
    assert body.count("[") == body.count("]")
    assert text.count(" -> ") == len(picture([x + 1, graphc.mean(x)], "graph").edges)
    assert "peripheries=2" in text


def test_dot_draws_kernels_as_clusters():
    graph = expand_gradients(flatten(example()))
    nodes = tuple(n for n in graph.nodes if n.inputs)
    text = dot(describe(graph, "kernels", [SimpleNamespace(label='a "kernel"', nodes=nodes)]))
    assert "subgraph cluster_k0" in text
    assert 'label="a \\"kernel\\""' in text


def test_mermaid_escapes_labels():
    x = graphc.placeholder((2,), name='q"]; click <b>#x`')
    text = export.mermaid(x + 1)
    first = next(line for line in text.splitlines() if line.startswith("  n0") or "placeholder" in line)
    label = re.search(r'\[/"(.*)"/\]', first)
    assert label is not None
    assert not set('"<>`') & set(label.group(1).replace("<br/>", ""))
    assert text.startswith("flowchart TB\n")


def test_a_chain_of_twenty_thousand_is_not_recursive():
    t = graphc.placeholder((2,), name="x")
    for _ in range(20_000):
        t = graphc.exp(t)
    assert len(json.loads(export.json(t))["nodes"]) == 20_001
    assert export.dot(t).count(" -> ") == 20_000
    assert export.mermaid(t).count(" --> ") == 20_000
    assert export.networkx(t).number_of_nodes() == 20_001


@pytest.mark.parametrize("function", [*TEXT_FORMATS, export.networkx])
def test_wrong_arguments_are_explained(function):
    x = graphc.placeholder((2,))
    with pytest.raises(DataError, match=r"stage must be one of 'graph'.*got 'fused'"):
        function(x, "fused")
    with pytest.raises(FetchError, match=r"fetches\['a'\]\[1\] is neither a tensor nor an update but int"):
        function({"a": [x, 3]})
    with pytest.raises(FetchError, match="nothing to draw"):
        function([])
