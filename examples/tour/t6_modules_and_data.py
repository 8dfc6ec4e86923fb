"""T6. Modules, parameters, losses, optimisers; datasets and the loader that makes batches of them."""

import numpy as np
from sklearn.datasets import load_digits

import graphc
from graphc import nn, optim
from graphc.data import Loader


class MyLinear(nn.Module):
    """A module of one's own: what is registered is what its attributes hold."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.W = graphc.parameter(graphc.init.normal(), shape=(inputs, outputs), name="W")
        self.b = graphc.parameter(graphc.init.normal(), shape=(outputs,), name="b")
        self.scale = graphc.constant(1.0)  # a plain tensor: no parameter

    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        return x @ self.W + self.b


class Digits:
    """A dataset is an object with a length and items: here an image of 64 pixels and its label."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.int64]:
        return self.images[index].astype(np.float32) / 16, self.labels[index]


def modules() -> None:
    layer = MyLinear(4, 12)
    x = graphc.placeholder((None, 4), name="x")
    y = layer(x)  # calls forward
    print("parameters:", [f"{p.name} {p.type}" for p in layer.parameters()])
    with graphc.Session() as session:
        print("output:", session.run(y, {x: np.ones((2, 4))}).shape)


def regression() -> None:
    """y = 2x + 1 on 11 points."""
    points = np.arange(11, dtype=np.float32).reshape(-1, 1)
    x, y = graphc.placeholder((None, 1), name="x"), graphc.placeholder((None, 1), name="y")
    model = nn.Linear(1, 1, name="line")
    loss = nn.mse_loss(model(x), y)
    train = optim.SGD(0.01).minimize(loss, model)
    with graphc.Session() as session:
        step = session.compile([loss, train], feeds=[x, y])
        losses = [float(step(points, 2 * points + 1)[0]) for _ in range(100)]
        slope, intercept = session.get(model.weight).item(), session.get("line.bias").item()
    print(f"y = {slope:.2f} x + {intercept:.2f}, loss {losses[-1]:.4f} after {len(losses)} epochs")


def classifier(epochs: int = 20) -> float:
    """Accuracy on held-out images."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images, labels = digits.data[order], digits.target[order]
    training, held_out = Digits(images[:1500], labels[:1500]), Digits(images[1500:], labels[1500:])
    x, y = graphc.placeholder((None, 64), name="x"), graphc.placeholder((None,), dtype="int64", name="y")
    model = nn.Sequential(nn.Linear(64, 128), nn.relu, nn.Linear(128, 10))
    logits = model(x)
    loss = nn.cross_entropy(logits, y)
    correct = (graphc.argmax(logits, axis=-1) == y).astype("int64").sum()
    train = optim.Adam(1e-3).minimize(loss)
    loader = Loader(training, batch_size=256, shuffle=True)
    with graphc.Session() as session:
        step = session.compile([loss, train], feeds=[x, y])
        for epoch in range(1, epochs + 1):
            total = sum(float(step(*batch)[0]) for batch in loader)
            if epoch % 5 == 0:
                print(f"epoch {epoch}: total loss {total:.3f} over {len(loader)} batches")
        right = sum(int(session.run(correct, {x: a, y: b})) for a, b in Loader(held_out, batch_size=256))
    print(f"held-out accuracy {right / len(held_out):.1%}")
    return right / len(held_out)


def optimizers() -> None:
    """The same model by each of the optimisers that the tutorial names."""
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((64, 3))
    targets = inputs @ [[1.0], [-2.0], [0.5]] + 0.25
    x, y = graphc.placeholder((None, 3), name="x"), graphc.placeholder((None, 1), name="y")
    for optimizer in (optim.SGD(0.1), optim.Adagrad(0.5), optim.RMSprop(0.02), optim.Adam(0.1)):
        loss = nn.mse_loss(nn.Linear(3, 1)(x), y)
        with graphc.Session() as session:
            step = session.compile([loss, optimizer.minimize(loss)], feeds=[x, y])
            losses = [float(step(inputs, targets)[0]) for _ in range(50)]
        print(f"{type(optimizer).__name__}: loss {losses[0]:.3f} -> {losses[-1]:.4f}")


def main() -> None:
    modules()
    regression()
    optimizers()
    classifier()


if __name__ == "__main__":
    main()
