"""The fakes live beside the agent's and the operator's tests (importlib mode adds no folder to the path)."""

import sys
from pathlib import Path

for folder in ("agent", "operator", "cli"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
