"""The virtual lab lives beside the agent's tests, the page of JSON here (importlib mode adds no folder to the path)."""

import sys
from pathlib import Path

for folder in ("agent", "docs"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
