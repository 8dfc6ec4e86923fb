"""Tests against PyTorch, which ``make test`` does not need. The samples of the registry's tests and the fuzzer's model
of rounding are imported by their names.
"""

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
for folder in (ROOT / "tests" / "registry", ROOT / "tools", ROOT / "peers"):
    sys.path.insert(0, str(folder))
os.environ.setdefault("GRAPHC_CACHE_DIR", tempfile.mkdtemp(prefix="graphc-peers-"))
