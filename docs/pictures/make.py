"""The drawings in the README. Run from anywhere: python docs/pictures/make.py"""

from __future__ import annotations

import os
from pathlib import Path

import graphc
from graphc import nn

HERE = Path(__file__).resolve().parent


def training_step() -> list[graphc.Tensor | graphc.Update]:
    """Loss and update of a network with one hidden layer, trained by Adam on class labels."""
    x = graphc.placeholder(("batch", 64), name="x")
    labels = graphc.placeholder(("batch",), dtype="int64", name="labels")
    network = nn.Sequential(nn.Linear(64, 128, name="hidden"), nn.relu, nn.Linear(128, 10, name="output"))
    loss = nn.cross_entropy(network(x), labels)
    return [loss, graphc.optim.Adam(1e-3).minimize(loss)]


if __name__ == "__main__":
    os.chdir(HERE.parents[1])  # tooltips name source files relative to where Python runs
    graphc.export.svg(training_step(), stage="gradient", path=HERE / "mlp.svg")
