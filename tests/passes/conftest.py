"""The modules beside this file, and the tools' package ``fuzz``, which draws random programs, are imported by name."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "tools")]
