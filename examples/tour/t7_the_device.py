"""T7. The device: the graph names none, the session does."""

import numpy as np

import graphc


def main() -> None:
    x = graphc.placeholder((None, 3), name="x")
    w = graphc.parameter(graphc.init.he_normal(), shape=(3, 2), name="w")
    loss = graphc.sum(graphc.relu(x @ w) ** 2)
    train = graphc.optim.SGD(0.01).minimize(loss)
    data = np.arange(12.0).reshape(4, 3)

    # PyTorch: device('cuda' if torch.cuda.is_available() else 'cpu'), and then .to(device) on model and data.
    print("devices here:", ", ".join(graphc.devices()))
    losses = {}
    for device in ("cuda" if "cuda" in graphc.devices() else "cpu", "auto", "reference"):
        with graphc.Session(device=device, seed=0) as session:
            losses[device] = [float(session.run([loss, train], {x: data})[0]) for _ in range(3)]
        print(f"{device}: losses {np.round(losses[device], 4)}")
    first, *others = losses.values()
    print("the same on each:", all(np.allclose(first, other, rtol=1e-5) for other in others))

    if "cuda" not in graphc.devices():
        try:
            graphc.Session(device="cuda")
        except graphc.GraphcError as error:
            print("asked for all the same:", error)


if __name__ == "__main__":
    main()
