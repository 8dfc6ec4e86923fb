"""T4. Stopping the gradient; and evaluation, which computes none because none is fetched."""

import numpy as np

import graphc


def main() -> None:
    x = graphc.placeholder((None, 3), name="x")
    w = graphc.parameter(np.full((3, 2), 0.5, np.float32), name="w")
    frozen = graphc.parameter(np.ones(2, np.float32), name="frozen", trainable=False)
    features = graphc.tanh(x @ w + frozen)

    # PyTorch's detach(): the value flows, the gradient does not.
    loss = (features * graphc.stop_gradient(features)).sum()
    gradient = graphc.gradients(loss, w)

    # trainable=False leaves a parameter out of minimize.
    train = graphc.optim.SGD(0.1).minimize(loss)
    print("updated by minimize:", train)

    with graphc.Session() as session:
        feeds = {x: np.ones((4, 3))}
        print("gradient with one factor stopped:", session.run(gradient, feeds)[0])
        # PyTorch's no_grad(): here a run computes what is fetched, and nothing else.
        forward = session.compile(loss)
        both = session.compile([loss, train])
        roles = {node.role for kernel in forward.kernels for node in kernel.nodes}
        print("kernels for the loss alone:", len(forward.kernels), "with roles", sorted(roles))
        roles = {node.role for kernel in both.kernels for node in kernel.nodes}
        print("kernels for a training step:", len(both.kernels), "with roles", sorted(roles))


if __name__ == "__main__":
    main()
