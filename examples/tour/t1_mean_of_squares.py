"""T1. A mean of squares: gradients are values, so there is nothing to zero and nothing to retain."""

import numpy as np

import graphc


def main() -> None:
    x = graphc.placeholder((2, 2), name="x")
    y = x + 1
    z = 2 * y**2
    res = z.mean()
    dx = graphc.gradients(res, x)

    with graphc.Session() as session:
        feeds = {x: np.ones((2, 2))}
        print("res =", session.run(res, feeds))
        print("d res/d x =\n", session.run(dx, feeds))
        # PyTorch adds into .grad until zero_grad(), and a second backward() needs retain_graph=True.
        # Here the gradient is a value like any other: run it again, get it again.
        print("again, the same:", np.array_equal(session.run(dx, feeds), session.run(dx, feeds)))

    # Accumulation, on purpose: three micro-batches added into a parameter, then one optimiser step.
    w = graphc.parameter([1.0, 2.0], name="w")
    batch = graphc.placeholder((None, 2), name="batch")
    gradient = graphc.gradients(((batch * w) ** 2).mean(), w)
    total = graphc.parameter([0.0, 0.0], name="total", trainable=False)
    accumulate = graphc.assign(total, total + gradient)
    step = graphc.group(graphc.assign(w, w - 0.1 * total), graphc.assign(total, 0.0))
    with graphc.Session() as session:
        for micro in np.arange(12.0).reshape(3, 2, 2):
            session.run(accumulate, {batch: micro})
        print("accumulated gradient =", session.get(total))
        session.run(step)
        print("after one step: w =", session.get(w), "total =", session.get(total))


if __name__ == "__main__":
    main()
