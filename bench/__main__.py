"""``python -m bench [NAME...]``: all of them without a name. Exit 1 when a target is missed."""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import sys
from dataclasses import asdict
from typing import Any

from bench.figures import Figure, lines
from bench.ground import RESULTS, load, machine
from bench.node_rules import KINDS

RULES = tuple(KINDS)

MUST_SHOW = ("demo", "lab_up", "frozen", "killed", "replay", "ratios")
NAMES = (
    *MUST_SHOW,
    "verbs",
    "policies",
    "ten_pods",
    "witness",
    "api_rates",
    "watch_decode",
    "node_dumps",
    "kernel_forward",
    "node_agent",
    "operator",
    "releases",
    "releases_kernel",
    "virtual_time",
    "variants",
    "ingress",
    "ingress_cases",
)
GROUPS = {"must_show": MUST_SHOW}


def measure(name: str, runs: int, drains: int = 100, rules: str = RULES[0]) -> list[Figure]:
    """Run one benchmark; its figures, printed and kept as JSON for docs/evidence.md."""
    module = importlib.import_module(f"bench.{name}")
    title: str = (module.__doc__ or name).splitlines()[0]
    ground = machine()
    print(f"{name}: {ground}", flush=True)
    counts: dict[str, tuple[Any, ...]] = {
        "ratios": (runs,),
        "ingress": (drains,),
        "witness": (2 * drains,),
        "node_agent": (rules,),
    }
    figures: list[Figure] = module.run(*counts.get(name, ()))
    print("\n".join(lines(title, figures)))
    print(f"  (load afterwards {load()})\n", flush=True)
    result = {"title": title, "ground": f"{ground} to {load()}", "figures": [asdict(one) for one in figures]}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    return figures


def main() -> int:
    known = (*NAMES, *GROUPS)
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; all without one")
    parser.add_argument("--runs", type=int, default=10, help="how often `ratios` plays the demo's rows")
    drains_help = "how many drains `ingress` plays through each proxy, and `witness` for every two over all kernels"
    parser.add_argument("--drains", type=int, default=100, help=drains_help)
    parser.add_argument(
        "--rules", choices=RULES, default=RULES[0], help="the rules that `node_agent` reads, two minutes each"
    )
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in known]
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(known)}")
    asked = [one for name in given.names or NAMES for one in GROUPS.get(name, (name,))]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as a Ctrl-C: labs and processes end with us
    try:
        missed = [
            f"{name}: {one.name}"
            for name in asked
            for one in measure(name, given.runs, given.drains, given.rules)
            if one.is_met is False
        ]
    except KeyboardInterrupt:  # every lab and process of ours has ended on its way here
        print("interrupted", file=sys.stderr)
        return 130
    for one in missed:
        print(f"missed: {one}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
