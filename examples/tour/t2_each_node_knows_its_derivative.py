"""T2. Each node knows its derivative: forward and backward are one graph, there to be looked at before any data."""

import json
import tempfile
from pathlib import Path

import graphc


def main(folder: str | None = None) -> None:
    x = graphc.placeholder((2, 2), name="x")
    y = x + 1
    z = 2 * y**2
    res = z.mean()
    dx = graphc.gradients(res, x)

    # PyTorch shows grad_fn=<AddBackward0> once the forward pass has run. Here no number has been seen yet.
    graph = json.loads(graphc.export.json([res, dx], stage="gradient"))
    names = {node["id"]: f"{node['name'] or node['op']}.{node['id']}" for node in graph["nodes"]}
    for node in graph["nodes"]:
        inputs = ", ".join(names[i["node"]] for i in node["inputs"])
        kind = f"{node['dtype']}{node['shape']}"
        print(f"{node['role']:<12} {names[node['id']]:<18} {kind:<16} {inputs}".rstrip())
    backward = [node["op"] for node in graph["nodes"] if node["role"] == "backward"]
    print("derived from the forward nodes:", ", ".join(backward))

    picture = Path(folder or tempfile.mkdtemp()) / "gradient.svg"
    picture.write_text(graphc.export.svg([res, dx], stage="gradient"))
    print("picture:", picture)


if __name__ == "__main__":
    main()
