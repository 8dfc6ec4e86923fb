"""A small page around the drawing: details of a box and its neighbours on hover. No script from elsewhere."""

from __future__ import annotations

import json
from string import Template

from passes.export.compose import Scene
from passes.export.render import svg, tooltip

_PAGE = Template("""<!DOCTYPE html>
<html lang="en"> <head> <meta charset="utf-8"> <title>graphc: $stage</title> <style> body { margin: 1.5rem; font:
14px/1.45 system-ui, sans-serif; background: #eef1f4; color: #26323d; } svg { max-width: none; } main { overflow:
auto; } #details { position: fixed; right: 1rem; top: 1rem; max-width: 28rem; padding: .6rem .9rem; border-radius:
8px; white-space: pre-wrap;
  background: #26323d; color: #f4f6f8; font: 12px/1.5 ui-monospace, monospace; display: none; pointer-events: none; }
svg.focus .box, svg.focus path[data-s] { opacity: .18; }
svg.focus .near { opacity: 1 !important; }
</style>
</head>
<body>
<main>
$drawing</main>
<div id="details"></div>
<script>
const details = $details, panel = document.getElementById("details"), svg = document.querySelector("svg");
for (const box of svg.querySelectorAll(".box")) {
  box.addEventListener("mouseenter", () => {
    const id = box.dataset.b, near = new Set([id]);
    for (const line of svg.querySelectorAll("path[data-s]"))
      if (line.dataset.s === id || line.dataset.t === id) {
        line.classList.add("near"); near.add(line.dataset.s); near.add(line.dataset.t);
      }
    for (const other of svg.querySelectorAll(".box")) if (near.has(other.dataset.b)) other.classList.add("near");
    svg.classList.add("focus"); panel.textContent = details[id]; panel.style.display = "block";
  });
  box.addEventListener("mouseleave", () => {
    for (const marked of svg.querySelectorAll(".near")) marked.classList.remove("near");
    svg.classList.remove("focus"); panel.style.display = "none";
  });
}
</script>
</body>
</html>
""")


def html(scene: Scene) -> str:
    """The page as text."""
    # A script element ends at the first "</", wherever it stands: JSON may write the slash with a backslash.
    details = (
        json.dumps([tooltip(box, scene) for box in scene.sketch.boxes])
        .replace("</", "<\\/")
        .replace("<!--", "<\\u0021--")
    )
    return _PAGE.substitute(stage=scene.sketch.picture.stage, drawing=svg(scene, interactive=True), details=details)
