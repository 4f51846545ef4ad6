"""``tidegate sim``: the demo's story in virtual time, over many seeds."""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

import click

_RATE = 60.0
"""Requests per second of a simulated row: a virtual request costs about a millisecond of CPU."""


@click.command(short_help="The demo's story over many seeds, in virtual time.")
@click.option("--seeds", default=50, show_default=True, type=click.IntRange(1), help="How many seeds.")
@click.option("--first", default=0, show_default=True, help="The first seed.")
@click.option("--jobs", default=2, show_default=True, type=click.IntRange(1), help="Processes.")
@click.option("--rate", default=_RATE, show_default=True, type=click.FloatRange(2), help="Requests per virtual second.")
@click.option("--chaos", is_flag=True, help="One gated update per seed while proxies, agents and holders break.")
@click.option(
    "--verbs", is_flag=True, help="With --chaos: people who cut, isolate, restore, drain and prepare instead."
)
@click.option(
    "--fence", default=0, type=click.IntRange(0), metavar="N",
    help="Instead: N random sequences of cuts, restarts and freezes for each kind of proxy, and what the fence said.",
)  # fmt: skip
@click.option(
    "--network", type=click.Choice(["virtual", "kernel"]), default="virtual", show_default=True,
    help="With --fence: virtual time, or network namespaces with real netfilter, in real time (root).",
)  # fmt: skip
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def sim(**options: Any) -> None:
    """The demo's story over many virtual seeds: same components, virtual time, seeded latencies.

    One line per seed: what each row lost, whether Tidegate's drains were verified, and the run's digest. The same
    seed gives the same digest. Exit 0 only if every seed's Tidegate rows lost nothing and verified every drain;
    with --chaos only if nothing contradicts what was called verified, with --verbs if no promise was broken, with
    --fence if no kind of proxy showed the epochs it is believed by and a route to what was cut before them. Else 1.

    \b
    tidegate sim --seeds 50
    tidegate sim --chaos --seeds 100
    tidegate sim --chaos --verbs --seeds 40
    tidegate sim --fence 2000
    tidegate sim --fence 200 --network kernel      # as root, about 6 minutes
    """
    if options["fence"]:
        if options["chaos"]:
            raise click.UsageError("--fence and --chaos are two simulations: take one")
        from tidegate.cli import sim_fence

        if options["network"] == "kernel":
            sim_fence.run_on_kernel(options["fence"], options["first"], options["output"])
        sim_fence.run(options["fence"], options["first"], options["jobs"], options["output"])
    if options["verbs"] and not options["chaos"]:
        raise click.UsageError("--verbs is a kind of chaos: sim --chaos --verbs")
    if options["network"] != "virtual":
        raise click.UsageError("--network kernel is for --fence")
    started = time.perf_counter()
    play, line, sum_up = (_play_chaos, _chaos_line, _chaos_summary) if options["chaos"] else (_play, _line, _summary)
    if options["verbs"]:
        play, line, sum_up = _play_verbs, _verbs_line, _verbs_summary
    seeds = range(options["first"], options["first"] + options["seeds"])
    results: list[Result] = []
    with ProcessPoolExecutor(options["jobs"]) as pool:
        for result in pool.map(play, [(seed, options["rate"]) for seed in seeds]):
            results.append(result)
            if options["output"] == "text":
                click.echo(line(result))
    failed = [result["seed"] for result in results if result["exit_code"]]
    seconds = round(time.perf_counter() - started, 1)
    if options["output"] == "json":
        summary = {"seeds": len(seeds), "first": seeds.start, "failed": failed, "wall_seconds": seconds}
        click.echo(json.dumps({**summary, "runs": results}, indent=2))
    else:
        kept = "every promise kept" if options["verbs"] else "nothing lost where everything was verified"
        verdict = f"failed seeds {failed}" if failed else kept
        click.echo(f"{len(seeds)} seeds, {sum_up(results)} in {seconds} s: {verdict}")
    sys.exit(1 if failed else 0)


Result = dict[str, Any]


def _play(task: tuple[int, float]) -> Result:
    from tidegate.rehearse.addons import TIDEGATE
    from tidegate.rehearse.settings import Settings
    from tidegate.rehearse.verdict import as_json, digest, judge
    from tidegate.rehearse.virtual import rehearse_virtually

    seed, rate = task
    settings = replace(Settings(seed=seed, requests_min=0), new_per_second=rate / 2, pool_per_second=rate / 2)
    rehearsal = rehearse_virtually(settings, addons=(TIDEGATE,))
    verdict = judge(rehearsal)
    virtual = max(run.timeline.update.ended_at for run in rehearsal.runs)
    began = min(run.timeline.update.started_at for run in rehearsal.runs)
    return {
        "seed": seed,
        "digest": digest(rehearsal),
        "exit_code": verdict.exit_code,
        "reasons": list(verdict.reasons),
        "virtual_seconds": round(virtual - began, 3),
        "runs": as_json(rehearsal)["runs"],
    }


def _summary(results: list[Result]) -> str:
    hours = sum(result["virtual_seconds"] for result in results) / 3600
    requests = sum(row["requests"] for result in results for row in result["runs"])
    return f"{requests} requests, {hours:.2f} virtual hours"


def _play_chaos(task: tuple[int, float]) -> Result:
    from tidegate.rehearse import chaos

    seed, rate = task
    outcome = chaos.play(seed, rate, shuffle=seed % 2 == 1)
    against = [*(f"{pod} lost a request" for pod in outcome.false_verified), *outcome.contradictions]
    return {
        "seed": seed,
        "digest": outcome.digest,
        "exit_code": 1 if against or outcome.unexplained or outcome.run.invalid else 0,
        "faults": outcome.faults,
        "requests": outcome.run.tally.requests,
        "lost": outcome.lost,
        "results": outcome.results,
        "contradictions": against,
        "invalid": outcome.run.invalid,
    }


def _chaos_line(result: Result) -> str:
    why = "; ".join(filter(None, (*result["contradictions"][:3], result["invalid"])))
    word = "ok  " if not result["exit_code"] else f"FAIL {why or 'lost requests, although every drain is verified'}"
    drains = ", ".join(f"{count} {name}" for name, count in sorted(result["results"].items()))
    lost = f"lost {result['lost']}/{result['requests']}"
    return f"seed {result['seed']:>4}  {word}  {drains}; {lost}; {result['faults']} faults  {result['digest'][:12]}"


def _chaos_summary(results: list[Result]) -> str:
    verified = sum(result["results"].get("verified", 0) for result in results)
    drains = sum(sum(result["results"].values()) for result in results)
    false = sum(bool(result["contradictions"]) for result in results)
    faults = sum(result["faults"] for result in results)
    return f"{drains} drains under {faults} faults, {verified} verified, contradicted in {false} seeds"


def _play_verbs(task: tuple[int, float]) -> Result:
    from tidegate.rehearse.verbs.play import play

    seed, rate = task
    outcome = play(seed, rate / 5, shuffle=seed % 2 == 1)
    return {
        "seed": seed,
        "digest": outcome.digest,
        "exit_code": 1 if outcome.findings else 0,
        "virtual_seconds": outcome.virtual_seconds,
        "faults": outcome.faults,
        "requests": outcome.requests,
        "lost": outcome.lost,
        "results": outcome.words,
        "findings": list(outcome.findings),
        "verbs": [str(deed) for deed in outcome.deeds],
    }


def _verbs_line(result: Result) -> str:
    word = "FAIL" if result["exit_code"] else "ok  "
    verbs = ", ".join(f"{count} {name}" for name, count in sorted(result["results"].items()))
    why = ", ".join(f"{count} on pods with {name}" for name, count in sorted(result["lost"].items())) or "0"
    lost = f"lost {why} of {result['requests']}"
    findings = "".join(f"\n      {one}" for one in result["findings"])
    return (
        f"seed {result['seed']:>4}  {word}  {verbs}; {lost}; {result['faults']} faults"
        f"  {result['digest'][:12]}{findings}"
    )


def _verbs_summary(results: list[Result]) -> str:
    words: dict[str, int] = {}
    for result in results:
        for word, count in result["results"].items():
            words[word] = words.get(word, 0) + count
    faults = sum(result["faults"] for result in results)
    broken = sum(len(result["findings"]) for result in results)
    told = ", ".join(f"{count} {word}" for word, count in sorted(words.items(), key=lambda item: (-item[1], item[0])))
    return f"{sum(words.values())} verbs under {faults} faults ({told}), {broken} promises broken"


def _line(result: Result) -> str:
    rows = "  ".join(f"{run['name']} {run['dropped']}/{run['requests']}" for run in result["runs"])
    word = "ok  " if not result["exit_code"] else "FAIL"
    reasons = "".join(f"\n      {reason}" for reason in result["reasons"])
    return f"seed {result['seed']:>4}  {word}  lost: {rows}  digest {result['digest'][:12]}{reasons}"
