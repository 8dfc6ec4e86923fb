"""Pictures of a graph: what is computed, before any data exists.

Every function takes ``fetches`` (a tensor, an update, or any nesting of lists, tuples and dicts of them) and a
``stage``:

``"graph"``      as written; a gradient is one node
``"gradient"``   with gradients expanded: forward and backward
``"optimized"``  what remains to be computed after optimisation
``"kernels"``    the same, with the nodes of each fused kernel in a box

The functions return text and also write it to ``path`` if one is given. The same program gives the same text, byte
for byte. They raise ``FetchError`` for what is neither a tensor nor an update and ``DataError`` for an unknown stage.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from passes.export import compose as _compose
from passes.export import model as _model
from passes.export import page as _page
from passes.export import render as _render
from passes.export import sketch as _sketch
from passes.export import text as _text

if TYPE_CHECKING:
    import networkx as _networkx

Path = str | os.PathLike[str]


def _written(text: str, path: Path | None) -> str:
    if path is not None:
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
    return text


def dot(fetches: Any, stage: str = "graph", path: Path | None = None) -> str:
    """The graph in Graphviz's DOT language, every node of it; fetched nodes have a double border."""
    return _written(_text.dot(_model.picture(fetches, stage)), path)


def mermaid(fetches: Any, stage: str = "graph", path: Path | None = None) -> str:
    """The graph as a Mermaid flowchart, which GitHub and many editors draw inside Markdown."""
    return _written(_text.mermaid(_model.picture(fetches, stage)), path)


def json(fetches: Any, stage: str = "graph", path: Path | None = None) -> str:
    """The graph as a JSON document:

    ``format``   ``"graphc.graph"``; ``version`` 1; ``stage``
    ``nodes``    in topological order, each with ``id`` (``"n0"``, ``"n1"``, ...), ``op``, ``name`` (or null), ``role``
                 (placeholder, parameter, constant, forward, backward, update), ``where`` (the user's line),
                 ``shape`` and ``dtype`` of the first result (null for an update), ``results`` (all of them),
                 ``inputs`` (``{"node": id, "result": index}`` each), ``attrs`` (those that are numbers, text or
                 tuples of ints), ``fetched`` and ``loss``
    ``outputs``  the fetched tensors, as inputs are written; ``updates`` the ids of the assignments
    ``groups``   the kernels (stage "kernels"), each with ``id``, ``label`` and ``nodes``

    An extent is an int, or text when it is symbolic; ``"?0"`` is the first without a name.
    """
    return _written(_text.to_json(_model.picture(fetches, stage)), path)


def svg(fetches: Any, stage: str = "graph", path: Path | None = None) -> str:
    """The graph as a drawing: the forward half flows down, the backward half flows back up beside it.

    Scalars, and parameters read again, are written into the label of what reads them, and all that an optimiser does to
    one parameter and its slots is one box; the other formats have every node.
    """
    return _written(_render.svg(_scene(fetches, stage)), path)


def html(fetches: Any, stage: str = "graph", path: Path | None = None) -> str:
    """A page of its own around the drawing; pointing at a box shows its details and what it is connected to."""
    return _written(_page.html(_scene(fetches, stage)), path)


def networkx(fetches: Any, stage: str = "graph", path: Path | None = None) -> _networkx.DiGraph:
    """The graph as a ``networkx.DiGraph``; ``path`` receives it in networkx's node-link JSON.

    Node attributes: ``op``, ``name``, ``shape``, ``dtype``, ``role``, ``where``, ``fetched``, ``group`` (the kernel's
    label). Edge attributes: ``input``, the position of the first input that the edge is, and ``inputs``, all of them.
    """
    graph = _text.to_networkx(_model.picture(fetches, stage))
    if path is not None:
        _written(_text.node_link(graph), path)
    return graph


def _scene(fetches: Any, stage: str) -> _compose.Scene:
    return _compose.compose(_sketch.sketch(_model.picture(fetches, stage)))


__all__ = ["dot", "html", "json", "mermaid", "networkx", "svg"]
