"""One kernel cache for the whole test session, checks between all passes, and Hypothesis without deadlines."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile

import pytest
from hypothesis import settings

settings.register_profile("graphc", deadline=None)
settings.load_profile("graphc")
_OWN = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Before any test process imports graphc; xdist's workers inherit the environment, and so the folder."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a background job, whose children would ignore it too
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.setdefault("GRAPHC_VERIFY", "1")
    if not os.environ.get("GRAPHC_CACHE_DIR"):
        config.stash[_OWN] = os.environ["GRAPHC_CACHE_DIR"] = tempfile.mkdtemp(prefix="graphc-test-cache-")


def pytest_unconfigure(config: pytest.Config) -> None:
    own = config.stash.get(_OWN, None)
    if own is not None:
        os.environ.pop("GRAPHC_CACHE_DIR", None)
        shutil.rmtree(own, ignore_errors=True)


@pytest.fixture(autouse=True, scope="session")
def kernel_cache_folder() -> str:
    """The folder in which every test process keeps its compiled kernels."""
    return os.environ["GRAPHC_CACHE_DIR"]
