"""The stage lives beside the agent's tests, the scene beside the scenarios, the terminal beside the command line's,
an operator beside its own (importlib mode adds no folder)."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
for folder in ("agent", "scenarios", "releases", "cli", "operator"):
    sys.path.insert(0, str(TESTS / folder))
