"""The modules beside this file, such as random_programs and noise_model, are imported by their names."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
