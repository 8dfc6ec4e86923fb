"""What the compiler made of the digits classifier's training step: its kernels, its memory, its times.

    python examples/see_what_it_did.py
    python examples/see_what_it_did.py --batch-size 256 --trace out/trace.json

The first two reports need no data and no run. The third is measured on copies of the parameters.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import digits
import train_mlp

import graphc


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-size", type=int, default=64, help="samples in a step (64)")
    parser.add_argument("--runs", type=int, default=200, help="steps that are timed (200)")
    parser.add_argument("--trace", type=Path, default=Path("out/trace.json"), help="the trace (out/trace.json)")
    args = parser.parse_args(argv)

    data = digits.load()
    x, y = data.x[: args.batch_size], data.y[: args.batch_size]
    model = train_mlp.build(pixels=x.shape[1], classes=10, hidden=256)
    with graphc.Session() as session:
        step = session.compile([model.loss, model.train], feeds=[model.x, model.y])
        print(step.explain(batch=len(x)), end="\n\n")
        print(step.memory_report(batch=len(x)), end="\n\n")
        args.trace.parent.mkdir(parents=True, exist_ok=True)
        print(step.profile(args.runs, x, y, trace=args.trace), end="\n\n")
    print(f"wrote {args.trace}, which https://ui.perfetto.dev and chrome://tracing show")


if __name__ == "__main__":
    main()
