"""The modules beside this file, op_samples and op_checks, are imported by their names."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
