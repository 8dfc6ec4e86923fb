"""T3. Leaves, intermediate values, and vector-Jacobian products."""

import numpy as np

import graphc


def main() -> None:
    np.set_printoptions(precision=4, suppress=True)
    with graphc.Session() as session:
        x = graphc.placeholder((3, 3), name="x")
        y = x + 5
        out = (y * y).mean()
        value, gradient = session.run([out, graphc.gradients(out, x)], {x: np.ones((3, 3))})
        print("out =", value, " d out/d x =\n", gradient)

        a, b = graphc.placeholder((2,), name="a"), graphc.placeholder((2,), name="b")
        q = 3 * a**3 - b**2
        da, db = session.run(graphc.gradients(q, [a, b], grad_ys=[1.0, 1.0]), {a: [2, 3], b: [6, 4]})
        print("dQ/da =", da, " dQ/db =", db)

        a = graphc.placeholder((3,), name="a")
        vjp = graphc.gradients(a**2, a, grad_ys=[0.1, 1.0, 0.0001])
        print("vJ =", session.run(vjp, {a: [10, 10, 10]}))

        # Gradients of intermediate values are asked for like any other (PyTorch gives None for b and c).
        a = graphc.placeholder((2, 2), name="a")
        b = a + 2
        c = b**2
        out = c.sum()
        value, grads = session.run([out, graphc.gradients(out, [a, b, c])], {a: np.ones((2, 2))})
        print("out =", value, *(f" d/d{n} = {g.ravel()[0]}" for n, g in zip("abc", grads, strict=True)))

        inp = graphc.placeholder((2,), name="inp")
        w1 = graphc.parameter([[1.0, 2.0], [3.0, 4.0]], name="w1")
        w2 = graphc.parameter([[2.0, 3.0], [4.0, 2.0]], name="w2")
        y1 = w1 @ inp
        y2 = w2 @ y1
        output = y2.sum()
        fetches = [y1, y2, output, *graphc.gradients(output, [w1, w2])]
        v1, v2, value, d1, d2 = session.run(fetches, {inp: [1, 2]})
        print("y1 =", v1, " y2 =", v2, " output =", value)
        print("d/dw1 =", d1.tolist(), " d/dw2 =", d2.tolist())

        try:
            graphc.gradients(y2, w1)
        except graphc.errors.GradientError as error:
            print("refused where it is written:", error)


if __name__ == "__main__":
    main()
