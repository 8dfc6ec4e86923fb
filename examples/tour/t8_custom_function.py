"""T8. A function with a derivative of one's own, as PyTorch's Function with forward and backward."""

import numpy as np

import graphc


def exp_rule(g: graphc.Tensor, y: graphc.Tensor, x: graphc.Tensor) -> graphc.Tensor:
    # forward's result is given: what PyTorch keeps with save_for_backward is a value of the graph like any other.
    return g * y


def linear(x: graphc.Tensor, w: graphc.Tensor, b: graphc.Tensor) -> graphc.Tensor:
    return x @ w + b


def linear_rule(
    g: graphc.Tensor, y: graphc.Tensor, x: graphc.Tensor, w: graphc.Tensor, b: graphc.Tensor
) -> tuple[graphc.Tensor, graphc.Tensor, graphc.Tensor]:
    # PyTorch asks ctx.needs_input_grad before each of these. Here all are written down, and what is asked for is run.
    return g @ w.T, x.T @ g, g.sum(axis=0)


def threshold(x: graphc.Tensor, at: float) -> graphc.Tensor:
    return (x > at).astype(x.dtype)


def straight_through(g: graphc.Tensor, y: graphc.Tensor, x: graphc.Tensor, at: float) -> tuple[graphc.Tensor, None]:
    return g, None  # `at` is a number and has no gradient


def main() -> None:
    np.set_printoptions(precision=4, suppress=True)
    x = graphc.placeholder((3,), name="x")
    with graphc.Session() as session:
        exp = graphc.custom_gradient(graphc.exp, exp_rule)
        y = exp(x)
        first = graphc.gradients(y.sum(), x)
        second = graphc.gradients(first.sum(), x)  # the rule is part of the graph, so it has a derivative too
        for name, value in zip(("y", "y'", "y''"), session.run([y, first, second], {x: [0, 1, 2]}), strict=True):
            print(name, "=", value)
        # All three are one tensor once the rules are written out: it is computed once and copied for each fetch.
        print("kernels:", ", ".join(kernel.label for kernel in session.compile([y, first, second]).kernels))

        step = graphc.custom_gradient(threshold, straight_through)
        passed = graphc.gradients((step(x, 0.5) * [1.0, 2.0, 3.0]).sum(), x)
        print("a step function with the gradient of the identity:", session.run(passed, {x: [0, 1, 2]}))

        # Gradients nobody asked for are not computed.
        layer = graphc.custom_gradient(linear, linear_rule)
        inputs = graphc.placeholder((None, 4), name="inputs")
        w = graphc.parameter(graphc.init.ones(), shape=(4, 2), name="w")
        b = graphc.parameter(graphc.init.zeros(), shape=(2,), name="b")
        loss = graphc.square(layer(inputs, w, b)).sum()
        for names, wanted in (("no gradient", []), ("b", [b]), ("w", [w]), ("inputs, w and b", [inputs, w, b])):
            fetches = [loss, *(graphc.gradients(loss, wanted) if wanted else [])]
            products = sum(kernel.label == "matmul" for kernel in session.compile(fetches).kernels)
            print(f"asked for {names}: {products} matrix product{'s' if products > 1 else ''}")
        found = session.run(graphc.gradients(loss, [w, b]), {inputs: np.ones((2, 4))})
        print("d loss/d w =", found[0].tolist(), " d loss/d b =", found[1].tolist())

        try:
            graphc.custom_gradient(graphc.exp, lambda g, y, x: g.sum())(x)
        except graphc.errors.GradientError as error:
            print("refused where it is written:", error)


if __name__ == "__main__":
    main()
