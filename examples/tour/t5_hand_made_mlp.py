"""T5. The hand-made MLP: two weights, ReLU, sum of squared errors, gradient descent written by hand."""

import time

import numpy as np

import graphc

BATCH, INPUT, HIDDEN, OUTPUT = 32, 1000, 100, 2
RATE = 1e-6


def data(dtype: str, seed: int = 0) -> list[np.ndarray]:
    """x, y, w1, w2: standard normal."""
    rng = np.random.default_rng(seed)
    shapes = [(BATCH, INPUT), (BATCH, OUTPUT), (INPUT, HIDDEN), (HIDDEN, OUTPUT)]
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def numpy_step(x: np.ndarray, y: np.ndarray, w1: np.ndarray, w2: np.ndarray) -> float:
    """The same step by hand; the weights are changed in place."""
    hidden = x @ w1
    active = np.maximum(hidden, 0)
    error = active @ w2 - y
    grad_output = 2 * error
    grad_hidden = grad_output @ w2.T
    grad_hidden[hidden <= 0] = 0
    w2 -= RATE * (active.T @ grad_output)
    w1 -= RATE * (x.T @ grad_hidden)
    return float(np.square(error).sum())


def build(w1_value: np.ndarray, w2_value: np.ndarray) -> tuple:
    """Placeholders, loss and update."""
    dtype = w1_value.dtype
    x = graphc.placeholder((BATCH, INPUT), dtype, name="x")
    y = graphc.placeholder((BATCH, OUTPUT), dtype, name="y")
    w1 = graphc.parameter(w1_value, name="w1")
    w2 = graphc.parameter(w2_value, name="w2")
    loss = ((graphc.relu(x @ w1) @ w2 - y) ** 2).sum()
    g1, g2 = graphc.gradients(loss, [w1, w2])
    train = graphc.group(graphc.assign(w1, w1 - RATE * g1), graphc.assign(w2, w2 - RATE * g2))
    return x, y, loss, train


def losses(dtype: str, iterations: int) -> list[float]:
    """The loss at each iteration, before its update."""
    x_value, y_value, w1_value, w2_value = data(dtype)
    x, y, loss, train = build(w1_value, w2_value)
    with graphc.Session() as session:
        step = session.compile([loss, train], feeds=[x, y])
        return [float(step(x_value, y_value)[0]) for _ in range(iterations)]


def main() -> None:
    for iteration, loss in enumerate(losses("float32", 500), 1):
        if iteration % 100 == 0:
            print(f"iteration {iteration}: loss {loss:.4g}")

    x_value, y_value, w1_value, w2_value = data("float32")
    x, y, loss, train = build(w1_value, w2_value)
    with graphc.Session() as session:
        step = session.compile([loss, train], feeds=[x, y])
        print("one step is", len(step.kernels), "kernels:", ", ".join(k.label for k in step.kernels))
        best = {"graphc": float("inf"), "numpy": float("inf")}
        for _ in range(200):  # taken in turns, so that both see the same machine
            for name, run in (
                ("graphc", lambda: step(x_value, y_value)),
                ("numpy", lambda: numpy_step(x_value, y_value, w1_value, w2_value)),
            ):
                start = time.perf_counter()
                run()
                best[name] = min(best[name], time.perf_counter() - start)
    print("fastest step:", ", ".join(f"{name} {seconds * 1e6:.0f} us" for name, seconds in best.items()))


if __name__ == "__main__":
    main()
