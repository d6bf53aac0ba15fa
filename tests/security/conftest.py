"""Make the makers of test data in tests/data importable."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "data"))
