"""Which BLAS products call: what is found, what is refused, and whose thread settings stay."""

from __future__ import annotations

import ctypes
import itertools
import logging
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest

import graphc
from graphc.errors import DeviceError, SessionError
from runtime import config
from runtime.cpu import blas, cache, microkernel, mkl_probe
from runtime.cpu.fixed_kernels import gemm_source
from runtime.cpu.products import Product, Split, blocks_of, gemm_words

Python = Callable[..., str]
ENVIRONMENT = Path(sysconfig.get_path("data"))
MKL = next((str(path) for path in ENVIRONMENT.glob("lib/libmkl_rt.so*")), "")
needs_mkl = pytest.mark.skipif(not MKL, reason="the extra mkl is not installed in this environment")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No choice made in the environment, and nothing remembered of a library."""
    monkeypatch.delenv("GRAPHC_BLAS", raising=False)
    for remembered in (blas._mkl, blas._warn_once):
        remembered.cache_clear()
    yield
    for remembered in (blas._mkl, blas._warn_once):
        remembered.cache_clear()


def product_of_session() -> None:
    """One product through a session of its own, compared with NumPy's."""
    x, y = graphc.placeholder((None, None), name="x"), graphc.placeholder((None, None), name="y")
    a = np.arange(24, dtype=np.float32).reshape(4, 6)
    with graphc.Session() as session:
        np.testing.assert_array_equal(session.run(x @ y, {x: a, y: a.T}), a @ a.T)


def environment(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """Have ``folder`` looked through for MKL; where its libraries go."""
    monkeypatch.setattr(blas, "_folders", lambda: [str(folder)])
    (folder / "lib").mkdir()
    return folder / "lib"


# What is found.


@pytest.mark.parametrize("asked", [None, "", "auto", "graphc", "scipy"])
@pytest.mark.parametrize("fuses", [True, False])
def test_own_kernel_and_scipy_where_there_is_no_mkl(
    fuses: bool, asked: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The own kernel where the processor multiplies and adds in one operation, or where it is asked for."""
    environment(monkeypatch, tmp_path)
    monkeypatch.setattr(microkernel, "fuses", lambda: fuses)
    own = asked == "graphc" or (fuses and asked != "scipy")
    if asked is not None:
        monkeypatch.setenv("GRAPHC_BLAS", asked)
    for all_usable in (False, True):
        found = [library.name for library in blas.libraries(all_usable=all_usable)]
        assert found == (["graphc", "scipy"] if own else ["scipy"])
    product_of_session()
    assert not caplog.records


def test_mkl_asked_for_and_missing_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment(monkeypatch, tmp_path)
    monkeypatch.setenv("GRAPHC_BLAS", "mkl")
    with pytest.raises(DeviceError, match=re.escape(str(tmp_path))) as raised:
        graphc.Session()
    assert "graphc[mkl]" in str(raised.value)
    assert "GRAPHC_BLAS=mkl" in config.describe()["blas"]  # which must not raise


def test_unknown_choice_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_BLAS", "openblas")
    with pytest.raises(SessionError, match=r"GRAPHC_BLAS=openblas is not known; use one of auto, graphc, scipy, mkl"):
        graphc.Session()


def test_reference_needs_no_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHC_BLAS", "nonsense")
    with graphc.Session(device="reference") as session:
        assert session.run(graphc.constant(1.0) + 1.0) == 2.0


def test_newest_mkl_of_the_environment_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lib = environment(monkeypatch, tmp_path)
    for name in ("libmkl_rt.so", "libmkl_rt.so.2", "libmkl_rt.so.3", "libmkl_core.so.4", "libmkl_rt_notes.txt"):
        (lib / name).touch()
    assert blas._mkl_path() == str(lib / "libmkl_rt.so.3")
    (lib / "libmkl_rt.so.10").touch()
    assert blas._mkl_path() == str(lib / "libmkl_rt.so.10")


def test_this_environment_is_looked_through() -> None:
    assert str(ENVIRONMENT) in blas._folders()
    assert Path(sys.prefix) == ENVIRONMENT


# What is broken.


BROKEN = {"empty": b"", "text": b"not a library at all", "cut short": b"\x7fELF\x02\x01\x01"}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_mkl_is_reported_once_and_scipy_called(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = environment(monkeypatch, tmp_path) / "libmkl_rt.so.3"
    broken.write_bytes(BROKEN[kind])
    product_of_session()
    product_of_session()
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert str(broken) in warnings[0]
    assert "SciPy" in warnings[0]
    monkeypatch.setenv("GRAPHC_BLAS", "mkl")
    with pytest.raises(DeviceError, match=re.escape(str(broken))):
        graphc.Session()
    monkeypatch.setenv("GRAPHC_BLAS", "scipy")
    product_of_session()


FAKES = {
    "dies": ("import os, sys\nsys.stderr.write('FATAL ERROR: Cannot load libmkl_core\\n')\nos._exit(2)", "libmkl_core"),
    "crashes": ("import os\nos.abort()", "ended with -6"),
    "multiplies wrongly": ("import sys\nsys.exit('its sgemm_ multiplies wrongly')", "multiplies wrongly"),
}


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize("kind", FAKES)
def test_mkl_that_ends_its_process_is_met_by_another(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """MKL calls exit() where one of its files is missing: this process must not be the one."""
    (environment(monkeypatch, tmp_path) / "libmkl_rt.so.3").touch()
    code, said = FAKES[kind]
    probe = tmp_path / "probe.py"
    probe.write_text(code)
    monkeypatch.setattr(mkl_probe, "__file__", str(probe))
    product_of_session()
    assert said in caplog.text


def test_mkl_whose_trial_hangs_is_not_called(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (environment(monkeypatch, tmp_path) / "libmkl_rt.so.3").touch()
    probe = tmp_path / "probe.py"
    probe.write_text("import time\ntime.sleep(100)")
    monkeypatch.setattr(mkl_probe, "__file__", str(probe))
    monkeypatch.setattr(blas, "PATIENCE", 0.2)
    product_of_session()
    assert "TimeoutExpired" in caplog.text


def test_second_openmp_of_the_same_kind_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two copies of LLVM's OpenMP end a process; the copy beside MKL, and GNU's, are fine."""
    lib = environment(monkeypatch, tmp_path)
    (lib / "libmkl_rt.so.3").touch()
    real = blas._loaded()
    for file, prefix, refused in (
        (tmp_path / "other" / "libomp.so", "libomp", True),
        (tmp_path / "other" / "libgomp.so.1", "libgomp", False),
        (lib / "libiomp5.so", "libiomp", False),
    ):
        entry = {"user_api": "openmp", "internal_api": "openmp", "prefix": prefix, "filepath": str(file)}
        monkeypatch.setattr(blas, "_loaded", lambda entry=entry: [*real, entry])
        assert (str(file) in blas._other_openmp(str(lib / "libmkl_rt.so.3"))) == refused


def test_which_loaded_library_is_scipys() -> None:
    def info(path: str, api: str = "openblas", user: str = "blas") -> dict[str, str]:
        return {"filepath": path, "internal_api": api, "user_api": user}

    numpy, scipy = info("/e/numpy.libs/libopenblas.so"), info("/e/scipy.libs/libopenblas.so")
    mkl, system = info("/e/lib/libmkl_rt.so.3", "mkl"), info("/usr/lib/libopenblas.so.0")
    openmp = info("/e/scipy.libs/libgomp.so", "openmp", "openmp")
    assert blas.scipy_blas([numpy, mkl, scipy, openmp]) == [scipy]
    assert blas.scipy_blas([numpy, mkl, system]) == [system]
    assert blas.scipy_blas([mkl]) == [mkl]  # an environment whose SciPy calls MKL
    assert blas.scipy_blas([numpy, openmp]) == []


# Vectors, which are their own transposes.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threads", [1, 2])
def test_products_of_vectors_in_every_form(threads: int, dtype: str) -> None:
    """Extents of 1 in every place, operands stored as they are, transposed, and with gaps; small integers, exactly."""
    rng = np.random.default_rng(3)
    a, b = graphc.placeholder((None, None), dtype, name="a"), graphc.placeholder((None, None), dtype, name="b")
    forms = {
        "nn": a @ b,
        "tn": a.T @ b,
        "nt": a @ b.T,
        "tt": a.T @ b.T,
        "gaps": a[:, ::2] @ b[::2],
        "part": a @ b[:, 1:],
    }
    with graphc.Session(threads=threads) as session:
        for m, n, k in itertools.product((1, 2, 700), (1, 2, 300), (1, 2, 50)):
            for form, fetched in forms.items():
                x = rng.integers(-4, 5, (k, m) if form in ("tn", "tt") else (m, k)).astype(dtype)
                y = rng.integers(-4, 5, (n, k) if form in ("nt", "tt") else (k, n)).astype(dtype)
                left, right = x.T if form in ("tn", "tt") else x, y.T if form in ("nt", "tt") else y
                if form == "gaps":
                    left, right = left[:, ::2], right[::2]
                right = right[:, 1:] if form == "part" else right
                found = session.run(fetched, {a: x, b: y})
                np.testing.assert_array_equal(found, left @ right, err_msg=f"{form} of {m}, {n}, {k}")


# Threads, with functions of the test's own in the places of a library's.


def test_kernel_limits_threads_while_it_multiplies_and_restores() -> None:
    """The limit is set before the first call, and what held before is set after the last."""
    calls: list[object] = []
    held = [7]

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
    def set_threads(count: int) -> int:
        before, held[0] = held[0], count
        calls.append(("threads", count))
        return before

    @ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 13)
    def gemm(*args: int) -> None:
        calls.append(("gemm", held[0], ctypes.cast(args[3], ctypes.POINTER(ctypes.c_int32))[0]))

    addresses = [int(ctypes.cast(f, ctypes.c_void_p).value or 0) for f in (gemm, gemm, set_threads)]
    product = Product(np.dtype(np.float32), 8, 5, 3)
    label, text = gemm_source(product.dtype)
    name = cache.kernel_name(label, text)
    kernel = cache.kernel_cache.get(name, lambda: text.replace("{name}", name), cache.Counters())
    for sets, expected in ((True, 1), (False, 7)):
        library = blas.Library("fake", addresses[0], addresses[1], addresses[2] if sets else 0)
        split = Split("fake", by_columns=False, parts=2)
        words = np.array(gemm_words(product, split, blocks_of(product, split), library, (3, 5), []), np.int64)
        calls.clear()
        ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(kernel.address)(words.ctypes.data, 0, 0, 2)
        multiplied = [("gemm", expected, 4)] * 2
        assert calls == ([("threads", 1), *multiplied, ("threads", 7)] if sets else multiplied)
        assert held == [7]


def test_show_config_says_which_blas_and_its_threads(capsys: pytest.CaptureFixture[str]) -> None:
    graphc.show_config()
    shown = dict(line.split(":", 1) for line in capsys.readouterr().out.splitlines())
    assert re.search(r"(mkl|openblas|blis|armpl|accelerate|BLAS) ?[\d.]*", shown["blas"])
    assert re.fullmatch(r"1 in each call of graphc's(, \d+ where others call \w+)+", shown["blas threads"].strip())


# MKL itself, in environments that have it.


@needs_mkl
def test_mkl_works(monkeypatch: pytest.MonkeyPatch) -> None:
    assert mkl_probe.fault(MKL) == ""
    assert re.fullmatch(r"\d{4}\.\d+(\.\d+)?", mkl_probe.version(MKL))
    assert sorted(library.name for library in blas.libraries(all_usable=True)) == ["graphc", "mkl", "scipy"]
    monkeypatch.setenv("GRAPHC_BLAS", "mkl")
    assert [library.name for library in blas.libraries(all_usable=True)] == ["mkl"]
    product_of_session()


@needs_mkl
@pytest.mark.parametrize(("processor", "first"), [("znver4", ["graphc", "scipy"]), ("sapphirerapids", ["mkl"])])
def test_mkl_comes_first_on_the_processors_it_was_made_for(
    processor: str, first: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llvm, "get_host_cpu_name", lambda: processor)
    assert [library.name for library in blas.libraries()] == first
    assert blas.libraries(all_usable=True)[0].name == first[0]


@needs_mkl
def test_wide_integers_are_refused(python: Python) -> None:
    """An MKL that the user has set to 64-bit integers would read beyond ours."""
    code = """
import logging, graphc, numpy as np
from runtime.cpu import blas
records = []
logging.getLogger("graphc.blas").addHandler(type("H", (logging.Handler,), {"emit": lambda s, r: records.append(r)})())
with graphc.Session() as session:
    assert session.run(graphc.sum(graphc.constant(np.ones((3, 3))) @ np.ones((3, 3)))) == 27.0
assert len(records) == 1 and "64-bit integers" in records[0].getMessage(), records
assert [library.name for library in blas.libraries()] == ["graphc", "scipy"]
"""
    python(code, MKL_INTERFACE_LAYER="ILP64")


MKL_THREADS = """
import ctypes, threading, numpy as np, scipy.linalg, graphc
from threadpoolctl import ThreadpoolController
from runtime.cpu import blas
(mkl,) = blas.libraries()
assert mkl.name == "mkl"
library = ctypes.CDLL(mkl.path)
before = {i["filepath"]: i["num_threads"] for i in ThreadpoolController().info()}
x, y = graphc.placeholder((None, None)), graphc.placeholder((None, None))
a = np.random.default_rng(0).normal(size=(300, 300)).astype(np.float32)
library.MKL_Set_Num_Threads(2)
for own in (0, 1, 2):
    library.MKL_Set_Num_Threads_Local(own)
    expected = library.MKL_Get_Max_Threads()
    with graphc.Session(threads=2) as session:
        step = session.compile(x @ y)
        np.testing.assert_allclose(step(a, a), a @ a, rtol=1e-3, atol=1e-3)
        other = threading.Thread(target=step, args=(a, a))
        other.start(); other.join()
        during = {i["filepath"]: i["num_threads"] for i in ThreadpoolController().info() if "mkl" not in i["filepath"]}
        assert all(during[path] == before[path] for path in during if path in before), (before, during)
        assert library.MKL_Get_Max_Threads() == expected
    assert library.MKL_Set_Num_Threads_Local(0) == own
    assert library.MKL_Get_Max_Threads() == 2
print("done")
"""


@needs_mkl
@pytest.mark.parametrize("layer", ["tbb", "omp", "workqueue"])
def test_mkl_settings_stay_the_users(layer: str, python: Python) -> None:
    """Global and thread's own number of threads, NumPy's and SciPy's BLAS: during a session and after it."""
    assert python(MKL_THREADS, NUMBA_THREADING_LAYER=layer, GRAPHC_BLAS="mkl").strip() == "done"


@needs_mkl
def test_missing_part_of_mkl_is_met_by_another_process(tmp_path: Path) -> None:
    for file in Path(MKL).parent.glob("libmkl_*"):
        if "core" not in file.name:
            (tmp_path / file.name).symlink_to(file)
    rt = tmp_path / Path(MKL).name
    rt.unlink()
    rt.write_bytes(Path(MKL).read_bytes())  # it looks for the others where it really is
    assert "libmkl_core" in blas._tried_out(str(rt))
    assert blas._tried_out(MKL) == ""


def test_probe_needs_only_the_standard_library() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(mkl_probe.__file__), "/nonexistent/libmkl_rt.so"], capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "OSError" in done.stderr
