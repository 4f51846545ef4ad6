"""The stage lives beside the tests that play on it (importlib mode adds no folder to the path)."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "model")]
