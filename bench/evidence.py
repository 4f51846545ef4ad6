"""Takes measured figures into docs/evidence.md: ``python -m bench.evidence`` after ``python -m bench``.

Every block between ``<!-- bench:NAME -->`` and ``<!-- /bench -->`` becomes the table of what NAME last measured, with
the machine, the commit and the load it was measured under. Prose outside the blocks is left alone.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from bench.figures import Figure, counted, number, verdict
from bench.ground import RESULTS, ROOT

PAGE = ROOT / "docs" / "evidence.md"
_BLOCK = re.compile(r"<!-- bench:([\w-]+) -->\n.*?<!-- /bench -->", re.DOTALL)


def renewed(page: str, blocks: Mapping[str, str]) -> str:
    """The page with every block that has something new replaced."""

    def block(found: re.Match[str]) -> str:
        new = blocks.get(found[1])
        return found[0] if new is None else f"<!-- bench:{found[1]} -->\n{new.strip()}\n<!-- /bench -->"

    return _BLOCK.sub(block, page)


def figures_block(result: dict[str, Any]) -> str:
    """One benchmark as a table, under what it was measured on."""
    rows = [_row(Figure(**one)) for one in result["figures"]]
    return "\n".join(
        [f"*{result['ground']}*", "", "| figure | measured | target | | |", "|---|---|---|---|---|", *rows]
    )


def _row(one: Figure) -> str:
    if one.target == "holds":
        return f"| {one.name} | {'yes' if one.is_met else 'no'} | yes | {verdict(one)} | {one.note} |"
    value = f"{number(one.value)} {one.unit}".strip()
    return f"| {one.name} | {value} | {one.target} | {verdict(one)} | {one.note} |"


def demo_block(found: dict[str, Any]) -> str:
    """The demo's table."""
    head = "| run | requests | dropped | rollout | excess pod-s | drain p50 | drain max | drains |"
    return "\n".join([head, "|---|---|---|---|---|---|---|---|", *(_demo_row(one) for one in found["runs"])])


def _demo_row(one: dict[str, Any]) -> str:
    causes = ", ".join(f"{cause} {count}" for cause, count in one["dropped_by_cause"].items())
    dropped = f"{one['dropped']} ({causes})" if causes else f"{one['dropped']}"
    drain = one["drain_seconds"]
    rollout = "never" if one["rollout_seconds"] is None else f"{one['rollout_seconds']:.1f} s"
    results = counted([drained["result"] for drained in one["drains"]])
    return (
        f"| {one['name']} | {one['requests']} | {dropped} | {rollout} | {one['excess_pod_seconds']:.1f} "
        f"| {drain['p50']:.2f} s | {drain['max']:.2f} s | {results} |"
    )


def measured() -> dict[str, str]:
    """A block per file that a benchmark left."""
    blocks: dict[str, str] = {}
    special: dict[str, Callable[[dict[str, Any]], str]] = {"demo-runs": demo_block}
    for file in sorted(RESULTS.glob("*.json")):
        blocks[file.stem] = special.get(file.stem, figures_block)(json.loads(file.read_text()))
    for file in sorted(RESULTS.glob("*.txt")):
        blocks[file.stem] = f"```\n{file.read_text().rstrip()}\n```"
    return blocks


def main() -> int:
    page, blocks = PAGE.read_text("utf-8"), measured()
    PAGE.write_text(renewed(page, blocks), "utf-8")
    missing = [name for name in _BLOCK.findall(page) if name not in blocks]
    for name in missing:
        print(f"not measured: {name}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
