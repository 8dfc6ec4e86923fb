"""The example: what it learns, what it writes, and that resuming is exact."""

from __future__ import annotations

import gzip
import importlib
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import safetensors
from safetensors.numpy import load_file

EXAMPLES = Path(__file__).parents[2] / "examples"
FAST = ["--hidden", "16", "--batch-size", "256"]


@pytest.fixture(params=["reference", "cpu"])
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module("train_mlp")
    for name in ("train_mlp", "digits"):
        sys.modules.pop(name, None)


def contents(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    path = folder / "checkpoint.safetensors"
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    return load_file(path), metadata


def assert_same_bits(left: Path, right: Path) -> None:
    (ours, our_metadata), (theirs, their_metadata) = contents(left), contents(right)
    assert our_metadata == their_metadata
    assert set(ours) == set(theirs)
    assert {n for n in ours if ours[n].tobytes() != theirs[n].tobytes()} == set()


def test_default_settings_reach_96_percent(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert example.main(["--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) == 32
    assert lines[-2] == f"wrote loss.png, graph.svg, weights.safetensors and checkpoint.safetensors to {tmp_path}"
    assert lines[0].startswith("epoch   1/30  loss ")
    accuracy, kernels, seconds = lines[-1].removeprefix("held-out accuracy ").split(", ")
    assert 96 <= float(accuracy.removesuffix("%")) <= 100
    assert int(kernels.removesuffix(" kernels")) > 0
    assert float(seconds.removesuffix(" s")) > 0
    assert err == ""  # no progress bar where stderr is not a terminal
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (tmp_path / "graph.svg").read_text()
    assert {name: array.shape for name, array in load_file(tmp_path / "weights.safetensors").items()} == {
        "0.weight": (64, 256), "0.bias": (256,), "2.weight": (256, 256), "2.bias": (256,), "4.weight": (256, 10),
        "4.bias": (10,),
    }  # fmt: skip
    entries = contents(tmp_path)[0]
    assert entries["progress"].tolist() == [30, 0, 64]
    assert entries["hidden1.weight/step"] == 30 * 23  # 1442 samples in batches of 64


def test_resuming_gives_the_same_bits(example: ModuleType, tmp_path: Path, device: str) -> None:
    common = [*FAST, "--device", device]
    assert example.main([*common, "--epochs", "5", "--out", str(tmp_path / "whole")]) == 0
    assert example.main([*common, "--epochs", "2", "--out", str(tmp_path / "parts")]) == 0
    assert contents(tmp_path / "parts")[0]["progress"].tolist() == [2, 0, 256]
    assert example.main([*common, "--epochs", "5", "--out", str(tmp_path / "parts"), "--resume"]) == 0
    assert_same_bits(tmp_path / "whole", tmp_path / "parts")
    histories = [(tmp_path / run / "history.json").read_text() for run in ("whole", "parts")]
    assert histories[0] == histories[1]
    other = [*common, "--seed", "1", "--epochs", "5", "--out", str(tmp_path / "other")]
    assert example.main(other) == 0
    different, same = contents(tmp_path / "other")[0], contents(tmp_path / "whole")[0]
    assert (different["hidden1.weight"] != same["hidden1.weight"]).any()


def test_resuming_a_finished_run_changes_nothing(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [*FAST, "--device", "reference", "--epochs", "1", "--out", str(tmp_path)]
    assert example.main(common) == 0
    before = contents(tmp_path)[0]
    last = capsys.readouterr().out.splitlines()[-1]
    assert example.main([*common, "--resume"]) == 0
    assert {n for n, a in contents(tmp_path)[0].items() if a.tobytes() != before[n].tobytes()} == set()
    _, again = capsys.readouterr().out.splitlines()
    assert again.split(",")[0] == last.split(",")[0]


def test_an_interrupted_epoch_is_discarded(
    example: ModuleType,
    tmp_path: Path,
    device: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    common = [*FAST, "--device", device]
    assert example.main([*common, "--epochs", "4", "--out", str(tmp_path / "whole")]) == 0
    assert example.main([*common, "--epochs", "2", "--out", str(tmp_path / "two")]) == 0
    capsys.readouterr()

    def interrupted(batches: Any, desc: str, **options: Any) -> Iterator[Any]:
        for position, batch in enumerate(batches):
            if (desc, position) == ("epoch 3", 4):
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(example, "tqdm", interrupted)
        assert example.main([*common, "--epochs", "4", "--out", str(tmp_path / "cut")]) == 130
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3].startswith("interrupted: the unfinished epoch is discarded")
    assert "holds 2 epoch(s)" in lines[-3]
    assert lines[-1].split(",")[0] == "held-out accuracy " + lines[-4].split()[-1]  # of the last whole epoch
    assert_same_bits(tmp_path / "two", tmp_path / "cut")
    weights = [load_file(tmp_path / run / "weights.safetensors") for run in ("two", "cut")]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])
    assert example.main([*common, "--epochs", "4", "--out", str(tmp_path / "cut"), "--resume"]) == 0
    assert_same_bits(tmp_path / "whole", tmp_path / "cut")


def test_an_interrupt_while_saving_leaves_the_epoch_before(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = [*FAST, "--device", "reference", "--epochs", "3"]
    assert example.main([*common, "--out", str(tmp_path / "whole")]) == 0
    save = example.graphc.Session.save

    def interrupted(session: Any, path: Path, params: Any = None) -> None:
        if params is None and session.get("progress")[0] == 2:
            raise KeyboardInterrupt
        save(session, path, params)

    with monkeypatch.context() as patch:
        patch.setattr(example.graphc.Session, "save", interrupted)
        assert example.main([*common, "--out", str(tmp_path / "cut")]) == 130
    assert contents(tmp_path / "cut")[0]["progress"].tolist() == [1, 0, 256]
    assert example.main([*common, "--out", str(tmp_path / "cut"), "--resume"]) == 0
    assert_same_bits(tmp_path / "whole", tmp_path / "cut")


def test_an_interrupt_in_the_first_epoch_leaves_what_was_there(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    common = [*FAST, "--device", "reference", "--epochs", "1", "--out", str(tmp_path)]
    assert example.main(common) == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def interrupted(*args: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(example, "tqdm", interrupted)
    capsys.readouterr()
    assert example.main([*common, "--seed", "5"]) == 130
    assert capsys.readouterr().err == "train_mlp: interrupted before the first epoch was complete\n"
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_resuming_needs_no_history(example: ModuleType, tmp_path: Path) -> None:
    common = [*FAST, "--device", "reference", "--out", str(tmp_path)]
    assert example.main([*common, "--epochs", "1"]) == 0
    (tmp_path / "history.json").unlink()
    assert example.main([*common, "--epochs", "2", "--resume"]) == 0
    assert contents(tmp_path)[0]["progress"].tolist() == [2, 0, 256]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_ends_the_program_cleanly(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "train_mlp.py"), *FAST, "--device", "reference", "--epochs", "100000"]
    with subprocess.Popen(
        [*command, "--out", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(EXAMPLES.parent)},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch   3/"):
                process.send_signal(signal.SIGINT)
                break
        rest, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors == ""
    last = rest.splitlines()
    assert last[-3].startswith("interrupted: ")
    done = int(contents(tmp_path)[0]["progress"][0])
    assert done >= 3
    assert f"holds {done} epoch(s)" in last[-3]


def write_mnist(folder: Path, packed: bool) -> None:
    rng = np.random.default_rng(0)
    for part, count in (("train", 40), ("t10k", 10)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = rng.integers(0, 40, (count, 28, 28), dtype=np.uint8)
        images[np.arange(count), labels] += 200
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            data = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
            path = folder / (f"{name}.gz" if packed else name)
            path.write_bytes(gzip.compress(data) if packed else data)


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_files_are_read(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], packed: bool
) -> None:
    write_mnist(tmp_path, packed)
    command = ["--data", str(tmp_path), "--out", str(tmp_path / "out"), "--device", "reference", "--batch-size", "8"]
    assert example.main([*command, "--epochs", "20"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("held-out accuracy 100.00%")
    assert load_file(tmp_path / "out" / "weights.safetensors")["0.weight"].shape == (784, 256)


def test_a_fifth_of_every_class_is_held_out(example: ModuleType) -> None:
    data = example.digits.load()
    assert len(data.x) + len(data.held_out_x) == 1797
    for part in (data.x, data.held_out_x):
        assert part.dtype == np.float32
        assert 0 <= part.min() < part.max() <= 1
    held, kept = np.bincount(data.held_out_y), np.bincount(data.y)
    assert held.tolist() == ((held + kept) // 5).tolist()
    assert held.tolist() == np.bincount(example.digits.load().held_out_y).tolist()
    assert len(np.unique(np.concatenate([data.x, data.held_out_x]), axis=0)) == 1797


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "{tmp}/nowhere"], "holds neither train-images-idx3-ubyte nor train-images-idx3-ubyte.gz"),
        (["--device", "abacus"], "unknown device 'abacus'"),
        (["--resume"], "checkpoint"),
        (["--seed", "0", "--out", "{tmp}/file"], "file"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    (tmp_path / "file").write_text("")
    out = [] if "--out" in options else ["--out", str(tmp_path / "out")]
    command = ["--device", "reference", *out, *(o.format(tmp=tmp_path) for o in options)]
    assert example.main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("train_mlp: ")
    assert words in line


@pytest.mark.parametrize("changed", [["--seed", "1"], ["--batch-size", "128"], ["--hidden", "17"]])
def test_resuming_with_other_settings_is_refused(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: list[str]
) -> None:
    common = [*FAST, "--device", "reference", "--epochs", "1", "--out", str(tmp_path)]
    assert example.main(common) == 0
    before = (tmp_path / "checkpoint.safetensors").read_bytes()
    capsys.readouterr()
    assert example.main([*common, "--resume", *changed]) == 2
    assert "checkpoint.safetensors" in capsys.readouterr().err
    assert (tmp_path / "checkpoint.safetensors").read_bytes() == before


@pytest.mark.parametrize("option", [["--epochs", "0"], ["--batch-size", "-1"], ["--seed", "x"], ["--nonsense"]])
def test_bad_options_are_refused_with_the_usage(
    example: ModuleType, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        example.main(option)
    assert caught.value.code == 2
    assert option[0] in capsys.readouterr().err
