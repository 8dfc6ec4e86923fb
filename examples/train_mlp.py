"""Train a small network on handwritten digits, from the graph to a resumable checkpoint.

    python examples/train_mlp.py
    python examples/train_mlp.py --epochs 40 --resume
    python examples/train_mlp.py --data path/to/mnist --epochs 10 --batch-size 256

Ctrl-C stops at the last complete epoch; --resume goes on from there exactly as if nothing had happened.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import digits
import numpy as np
from tqdm import tqdm

import graphc
from graphc import nn

History = list[tuple[float, float]]  # training loss and held-out accuracy of every epoch


@dataclass
class Model:
    """The graph: what is fed, what is trained, what is asked for."""

    x: graphc.Tensor
    y: graphc.Tensor
    network: nn.Module
    loss: graphc.Tensor
    accuracy: graphc.Tensor
    train: graphc.Update
    progress: graphc.Tensor


def build(pixels: int, classes: int, hidden: int) -> Model:
    """Two hidden layers with ReLU, cross entropy and Adam. Nothing is computed here."""
    x = graphc.placeholder(("batch", pixels), name="x")
    y = graphc.placeholder(("batch",), dtype="int64", name="y")
    network = nn.Sequential(
        nn.Linear(pixels, hidden, name="hidden1"),
        nn.relu,
        nn.Linear(hidden, hidden, name="hidden2"),
        nn.relu,
        nn.Linear(hidden, classes, name="output"),
    )
    logits = network(x)
    loss = nn.cross_entropy(logits, y)
    accuracy = graphc.mean(graphc.argmax(logits, axis=-1) == y)
    train = graphc.optim.Adam(1e-3).minimize(loss)
    # What a resumed run must know besides weights and slots: epochs done, seed, batch size. As a parameter it is saved
    # in the same file, so that the two can never be out of step.
    progress = graphc.parameter(np.zeros(3, np.int64), name="progress", trainable=False)
    return Model(x, y, network, loss, accuracy, train, progress)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    def positive(text: str) -> int:
        if (value := int(text)) < 1:
            raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
        return value

    def whole(text: str) -> int:
        if (value := int(text)) < 0:
            raise argparse.ArgumentTypeError(f"must be at least 0, got {text}")
        return value

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=positive, default=30, help="epochs in all, resumed ones included (30)")
    parser.add_argument("--batch-size", type=positive, default=64, help="samples in a step (64)")
    parser.add_argument("--hidden", type=positive, default=256, help="width of both hidden layers (256)")
    parser.add_argument("--seed", type=whole, default=0, help="decides first weights and the order of samples (0)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, auto or reference (cpu)")
    parser.add_argument("--data", metavar="DIR", help="folder with the four IDX files of MNIST or Fashion-MNIST")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("out"), help="where to write results (out)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Train, evaluate, write results. 0 when done, 2 for bad input, 130 when interrupted."""
    args = arguments(argv)
    try:
        return train(args, digits.load(args.data))
    except (graphc.GraphcError, OSError) as error:
        print(f"train_mlp: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("train_mlp: interrupted before the first epoch was complete", file=sys.stderr)
        return 130


def train(args: argparse.Namespace, data: digits.Digits) -> int:
    started = time.perf_counter()
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint = args.out / "checkpoint.safetensors"
    model = build(data.x.shape[1], int(data.y.max()) + 1, args.hidden)
    batches = graphc.data.batches(data.x, data.y, batch_size=args.batch_size, shuffle=True, seed=args.seed)
    interrupted = False
    with graphc.Session(device=args.device, seed=args.seed) as session:
        step = session.compile([model.loss, model.train], feeds=[model.x, model.y])
        evaluate = session.compile(model.accuracy, feeds=[model.x, model.y])
        history = resume(session, model, args, checkpoint) if args.resume else []
        try:
            for epoch in range(len(history), args.epochs):
                batches.epoch = epoch
                total = 0.0
                # disable=None: no bar where stderr is not a terminal.
                for xb, yb in tqdm(batches, desc=f"epoch {epoch + 1}", leave=False, disable=None):
                    loss, _ = step(xb, yb)
                    total += float(loss) * len(xb)
                accuracy = float(evaluate(data.held_out_x, data.held_out_y))
                mean = total / len(data.x)
                history = save(session, model, args, checkpoint, [*history, (mean, accuracy)])
                print(f"epoch {epoch + 1:3}/{args.epochs}  loss {mean:.4f}  held-out accuracy {accuracy:.2%}")
        except KeyboardInterrupt:
            if not history:
                raise
            # Part of an epoch is discarded, so that resuming is exact.
            interrupted, history = True, resume(session, model, args, checkpoint)
            print(
                f"interrupted: the unfinished epoch is discarded, {checkpoint} holds {len(history)} epoch(s); "
                f"go on with --resume"
            )
        accuracy = float(evaluate(data.held_out_x, data.held_out_y))
        session.save(args.out / "weights.safetensors", params=model.network)
        kernels = len(step.kernels)
    plot(history, args.out / "loss.png")
    drawing = graphc.export.svg([model.loss, model.train], stage="gradient")
    (args.out / "graph.svg").write_text(drawing, encoding="utf-8")
    print(f"wrote loss.png, graph.svg, weights.safetensors and checkpoint.safetensors to {args.out}")
    print(f"held-out accuracy {accuracy:.2%}, {kernels} kernels, {time.perf_counter() - started:.1f} s")
    return 130 if interrupted else 0


def save(
    session: graphc.Session, model: Model, args: argparse.Namespace, checkpoint: Path, history: History
) -> History:
    """Everything the session holds, in one file, written whole or not at all; then the numbers for the curve."""
    session.set(model.progress, [len(history), args.seed, args.batch_size])
    session.save(checkpoint)
    written = checkpoint.with_name("history.json.tmp")
    written.write_text(json.dumps(history))
    os.replace(written, checkpoint.with_name("history.json"))
    return history


def resume(session: graphc.Session, model: Model, args: argparse.Namespace, checkpoint: Path) -> History:
    """Restore the session; the numbers of the epochs done."""
    session.get(model.progress)  # the session has met it now, so that a file without it is refused
    session.load(checkpoint)
    done, seed, batch_size = (int(value) for value in session.get(model.progress))
    if (seed, batch_size) != (args.seed, args.batch_size):
        raise graphc.errors.DataError(
            f"{checkpoint} was made with --seed {seed} --batch-size {batch_size}; resuming needs the same"
        )
    # Only the curve depends on these. They are written after the checkpoint, so the last epoch's may be missing.
    path = checkpoint.with_name("history.json")
    rows = [(loss, accuracy) for loss, accuracy in json.loads(path.read_text())] if path.exists() else []
    return [*rows, *[(math.nan, math.nan)] * done][:done]


def plot(history: History, path: Path) -> None:
    """The loss of every epoch, and the accuracy on held-out data."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, left = plt.subplots(figsize=(6, 4), layout="constrained")
    epochs = range(1, len(history) + 1)
    left.semilogy(epochs, [loss for loss, _ in history], color="tab:blue", marker=".", label="training loss")
    left.set(xlabel="epoch", ylabel="cross entropy")
    right = left.twinx()
    right.plot(epochs, [accuracy for _, accuracy in history], color="tab:orange", marker=".", label="held-out accuracy")
    right.set(ylabel="accuracy")
    figure.legend(loc="outside upper center", ncols=2)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    sys.exit(main())
