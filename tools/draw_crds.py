"""``python -m tools.draw_crds``: deploy/crds/ from the code (operator/crds.py). ``--check`` only looks."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from tidegate.operator.crds import manifests

FOLDER = Path(__file__).parents[1] / "deploy" / "crds"
HEAD = "# Drawn from src/tidegate/operator/crds.py by `python -m tools.draw_crds`.\n"


def main() -> int:
    FOLDER.mkdir(parents=True, exist_ok=True)
    stale = []
    for one in manifests():
        path = FOLDER / f"{one['metadata']['name']}.yaml"
        text = HEAD + yaml.safe_dump(one, sort_keys=False, width=120)
        if not path.exists() or path.read_text("utf-8") != text:
            stale.append(path.name)
            if "--check" not in sys.argv:
                path.write_text(text, "utf-8")
    print("\n".join(stale) or "up to date")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
