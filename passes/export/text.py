"""Pictures as text for other programs: DOT, Mermaid, JSON, and a networkx graph."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from passes.export.model import Entry, Picture, ShapeNamer, type_text

if TYPE_CHECKING:
    import networkx

# Fill, line, DOT shape, Mermaid brackets: one row per role, told apart without colour too.
STYLES: dict[str, tuple[str, str, str, tuple[str, str]]] = {
    "placeholder": ("#d6e8fb", "#2b6cb0", "parallelogram", ("[/", "/]")),
    "parameter": ("#d8f0d8", "#2f7d32", "cylinder", ("[(", ")]")),
    "constant": ("#ececec", "#8a8a8a", "plaintext", ("(", ")")),
    "forward": ("#ffffff", "#4a6b8a", "box", ("[", "]")),
    "backward": ("#fde3c8", "#c2620d", "box", ("([", "])")),
    "update": ("#e6d9f5", "#6b3fa0", "octagon", ("{{", "}}")),
}


def lines_of(entry: Entry) -> list[str]:
    """What a box says: name, op, a constant's value, type."""
    first = f"{entry.name}: {entry.op}" if entry.name else entry.op
    value = entry.node.attrs.get("value")
    if isinstance(value, np.ndarray) and value.size == 1:
        first += f" {value.item():.6g}" if value.dtype.kind != "b" else f" {value.item()}"
    elif entry.op == "extent":
        first += f" {ShapeNamer()([entry.node.attrs['extent']])[0]}"
    return [first, *(type_text(t) for t in entry.node.results)]


def dot(picture: Picture) -> str:
    """Graphviz's language."""
    grouped = {i: group for group in picture.groups for i in group.members}
    out = [
        "digraph graphc {",
        '  graph [rankdir=TB, fontname="sans-serif", bgcolor="white"];',
        '  node [fontname="sans-serif", fontsize=11, style="filled", margin="0.12,0.06"];',
        '  edge [fontname="sans-serif", fontsize=9, color="#556677"];',
    ]
    for group in picture.groups:
        out += [
            f"  subgraph cluster_{group.id} {{",
            f'    label={_quoted(group.label)}; style=rounded; color="#556677";',
        ]
        out += [f"  {_dot_node(picture.entries[i])}" for i in group.members] + ["  }"]
    out += [_dot_node(entry) for i, entry in enumerate(picture.entries) if i not in grouped]
    for edge in picture.edges:
        source, target = picture.entries[edge.source], picture.entries[edge.target]
        label = f", taillabel={_quoted(str(edge.result))}" if len(source.node.results) > 1 else ""
        out.append(f'  {source.id} -> {target.id} [tooltip="input {edge.position}"{label}];')
    return "\n".join([*out, "}"]) + "\n"


def _dot_node(entry: Entry) -> str:
    fill, line, shape, _ = STYLES[entry.role]
    style = "filled,rounded" if entry.role == "backward" else "filled"
    ring = ", peripheries=2" if entry.fetched else ""
    label = "\\n".join(_escaped(text) for text in lines_of(entry))
    return (
        f'  {entry.id} [label="{label}", shape={shape}, style="{style}", fillcolor="{fill}", color="{line}"{ring}, '
        f"tooltip={_quoted(entry.where)}];"
    )


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\r", " ").replace("\n", " ")


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def mermaid(picture: Picture) -> str:
    """Mermaid's flowchart language, which GitHub draws."""
    out = ["flowchart TB"]
    grouped = {i for group in picture.groups for i in group.members}
    for group in picture.groups:
        out.append(f"  subgraph {group.id}[{_mermaid_text([group.label])}]")
        out += [f"  {_mermaid_node(picture.entries[i])}" for i in group.members] + ["  end"]
    out += [_mermaid_node(entry) for i, entry in enumerate(picture.entries) if i not in grouped]
    out += [f"  {picture.entries[e.source].id} --> {picture.entries[e.target].id}" for e in picture.edges]
    for role, (fill, line, _, _) in STYLES.items():
        out.append(f"  classDef {role} fill:{fill},stroke:{line},color:#1b2733")
    out.append("  classDef fetched stroke-width:4px")
    for role in STYLES:
        members = [entry.id for entry in picture.entries if entry.role == role]
        if members:
            out.append(f"  class {','.join(members)} {role}")
    fetched = [entry.id for entry in picture.entries if entry.fetched]
    if fetched:
        out.append(f"  class {','.join(fetched)} fetched")
    return "\n".join(out) + "\n"


def _mermaid_node(entry: Entry) -> str:
    before, after = STYLES[entry.role][3]
    return f"  {entry.id}{before}{_mermaid_text(lines_of(entry))}{after}"


def _mermaid_text(lines: list[str]) -> str:
    """A quoted label. Mermaid has no backslash escapes: what could be markup is written as a character entity."""
    return '"' + "<br/>".join("".join(_entity(c) for c in line) for line in lines) + '"'


def _entity(character: str) -> str:
    if character in '"#&<>`\\{}|;*_~' or (character < " "):
        return f"#{ord(character)};" if character >= " " else " "
    return character


def to_json(picture: Picture) -> str:
    """The whole picture; the schema is in the docstring of ``graphc.export.json``."""
    shape = ShapeNamer()
    document = {
        "format": "graphc.graph",
        "version": 1,
        "stage": picture.stage,
        "nodes": [_json_node(picture, entry, shape) for entry in picture.entries],
        "outputs": [{"node": f"n{picture.index[t.node]}", "result": t.index} for t in picture.graph.outputs],
        "updates": [f"n{picture.index[u]}" for u in picture.graph.updates],
        "groups": [
            {"id": g.id, "label": g.label, "nodes": [picture.entries[i].id for i in g.members]} for g in picture.groups
        ],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _json_node(picture: Picture, entry: Entry, shape: ShapeNamer) -> dict[str, Any]:
    results = [{"shape": shape(t.shape), "dtype": str(t.dtype)} for t in entry.node.results]
    return {
        "id": entry.id,
        "op": entry.op,
        "name": entry.name,
        "role": entry.role,
        "where": entry.where,
        "shape": results[0]["shape"] if results else None,
        "dtype": results[0]["dtype"] if results else None,
        "results": results,
        "inputs": [{"node": f"n{picture.index[t.node]}", "result": t.index} for t in entry.node.inputs],
        "attrs": dict(_plain_attrs(entry, shape)),
        "fetched": entry.fetched,
        "loss": entry.loss,
    }


def _plain_attrs(entry: Entry, shape: ShapeNamer) -> Iterator[tuple[str, Any]]:
    """Attributes that say something as text; types are given elsewhere, and large values are left out."""
    for key, value in entry.node.attrs.items():
        if key in ("shape", "dtype"):
            continue
        if key == "extent":
            yield key, shape([value])[0]
        elif isinstance(value, (bool, int, str)):
            yield key, value
        elif isinstance(value, tuple) and all(isinstance(v, int) for v in value):
            yield key, list(value)
        elif isinstance(value, np.ndarray) and value.size == 1 and key == "value":
            yield key, _json_number(value.item())


def _json_number(value: Any) -> Any:
    """JSON has no NaN and no infinity: they are written as text."""
    return (
        str(value) if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))) else value
    )


def to_networkx(picture: Picture) -> networkx.DiGraph:
    """A directed graph with one node per node of the graph."""
    import networkx as nx

    shape = ShapeNamer()
    graph = nx.DiGraph(stage=picture.stage)
    for entry in picture.entries:
        first = entry.node.results[0] if entry.node.results else None
        graph.add_node(
            entry.id, op=entry.op, name=entry.name, shape=tuple(shape(first.shape)) if first else None,
            dtype=str(first.dtype) if first else None, role=entry.role, where=entry.where, fetched=entry.fetched,
            group=None,
        )  # fmt: skip
    for group in picture.groups:
        for i in group.members:
            graph.nodes[picture.entries[i].id]["group"] = group.label
    for edge in picture.edges:
        source, target = picture.entries[edge.source].id, picture.entries[edge.target].id
        if graph.has_edge(source, target):
            graph.edges[source, target]["inputs"] += (edge.position,)
        else:
            graph.add_edge(source, target, input=edge.position, inputs=(edge.position,))
    return graph


def node_link(graph: networkx.DiGraph) -> str:
    """networkx's node-link JSON of ``graph``."""
    document = {
        "directed": True,
        "multigraph": False,
        "graph": dict(graph.graph),
        "nodes": [{"id": n, **data} for n, data in graph.nodes(data=True)],
        "edges": [{"source": s, "target": t, **data} for s, t, data in graph.edges(data=True)],
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"
