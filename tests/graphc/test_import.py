"""What ``import graphc`` loads and shows, and a user's file that hides one of its packages: scripts in processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import graphc

ROOT = Path(graphc.__file__).parent.parent


def python(code: str, folder: Path, *, fails: bool = False) -> str:
    """What ``code``, run as a script in ``folder``, prints; its error output if it is to fail."""
    script = folder / "script.py"
    script.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=folder, capture_output=True, text=True, env=os.environ, check=False
    )
    assert (done.returncode != 0) == fails, done.stderr
    return done.stderr if fails else done.stdout


def test_import_is_light(tmp_path: Path) -> None:
    code = (
        "import sys, graphc\n"
        "w = graphc.parameter([1.0])\n"
        "graphc.gradients((w * graphc.placeholder((1,))).sum(), w)\n"
        "heavy = ('numba', 'llvmlite', 'scipy', 'networkx', 'safetensors', 'threadpoolctl', 'passes', 'runtime')\n"
        "print([m for m in heavy if m in sys.modules])\n"
        "graphc.Session\n"
        "print('runtime' in sys.modules)\n"
    )
    assert python(code, tmp_path).splitlines() == ["[]", "True"]


def test_lazy_attributes(tmp_path: Path) -> None:
    code = (
        "import sys, graphc\n"
        "print('Session' in vars(graphc), 'Session' in dir(graphc))\n"
        "from graphc import Session\n"
        "print(vars(graphc)['Session'] is Session is graphc.Session, Session.__module__)\n"
        "print(graphc.export.__name__, callable(graphc.show_config))\n"
    )
    assert python(code, tmp_path).splitlines() == ["False True", "True runtime.session", "passes.export True"]


def test_dir_shows_the_public_names() -> None:
    names = dir(graphc)
    assert names == sorted(graphc.__all__)
    assert {"Session", "export", "show_config", "gradients", "nn", "optim", "matmul", "__version__"} <= set(names)
    assert not [n for n in names if n.startswith("_") and n != "__version__"]
    assert all(hasattr(graphc, n) for n in names)


def test_every_public_name_is_documented() -> None:
    missing = [n for n in dir(graphc) if not n.startswith("__") and not getattr(graphc, n).__doc__]
    assert missing == []


def test_an_unknown_name() -> None:
    with pytest.raises(AttributeError, match="module 'graphc' has no attribute 'tensr'"):
        graphc.tensr  # noqa: B018


@pytest.mark.parametrize("package", ["runtime", "passes"])
@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("first", ["", "import {package}\n"])
def test_a_file_that_hides_a_package(package: str, folder: bool, first: str, tmp_path: Path) -> None:
    theirs = tmp_path / package / "__init__.py" if folder else tmp_path / f"{package}.py"
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("mine = 1\n", encoding="utf-8")
    code = (
        first.format(package=package)
        + "import graphc\nx = graphc.placeholder((2,)) + 1\nprint('built')\ngraphc.Session()\n"
    )
    text = python(code, tmp_path, fails=True)
    assert (
        f"ImportError: graphc needs its own package '{package}', but Python finds another of that name first:" in text
    )
    assert f"found:  {theirs}" in text
    assert f"needed: {ROOT / package / '__init__.py'}" in text
    assert "rename your file, or run from another folder" in text


def test_a_folder_without_code(tmp_path: Path) -> None:
    """Python prefers any package to it, but takes it before what an editable install finds."""
    (tmp_path / "runtime").mkdir()
    code = "import graphc\ntry:\n    print(graphc.Session.__name__)\nexcept ImportError as error:\n    print(error)\n"
    text = python(code, tmp_path)
    assert text == "Session\n" or f"found:  {tmp_path / 'runtime'}\n" in text
