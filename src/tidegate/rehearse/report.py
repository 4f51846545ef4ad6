"""The report of a rehearsal: one HTML file that opens anywhere, without a network. Pure: results in, text out."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from importlib import resources

from tidegate.rehearse import chart, table
from tidegate.rehearse.samples import quantile
from tidegate.rehearse.settings import Row
from tidegate.rehearse.timeline import PodTrack
from tidegate.rehearse.verdict import Rehearsal, Run, Verdict

WORDS: dict[str, Callable[[Row], str]] = {
    "none": lambda row: "No preStop hook: the app gets SIGTERM at once and exits.",
    "sleep": lambda row: (
        f"preStop sleep {row.sleep_seconds}: the app gets SIGTERM {row.sleep_seconds} s after the DELETE."
    ),
    "gate": lambda row: "The drain gate: the app gets SIGTERM when every node is seen to have let go.",
}

LEGEND = (
    ("starting", "starting"),
    ("ready", "ready, old version"),
    ("ready new", "ready, new version"),
    ("cut", "cut: deleted, still routed to by a node"),
    ("draining", "draining: no route left, not stopped yet"),
    ("stale", "gone, still routed to"),
    ("excess", "more live pods than asked for"),
)

THIN_SPACE = "\u202f"
"""Between thousands; it does not break a line."""


def render(rehearsal: Rehearsal, verdict: Verdict, made_at: str) -> str:
    """The whole page. ``made_at`` is printed as given."""
    scale = chart.common_scale([run.timeline for run in rehearsal.runs])
    sections = "\n".join(_section(run, scale) for run in rehearsal.runs)
    title = escape(_title(rehearsal))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tidegate rehearsal: {title}</title>
<style>
{_asset("report.css")}</style>
</head>
<body>
<main>
{_head(rehearsal, verdict, made_at)}
{_overview(rehearsal)}
{_legend()}
{sections}
{_foot(rehearsal)}
</main>
<div id="tip" role="tooltip"></div>
<script>
{_asset("report.js")}</script>
</body>
</html>
"""


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _title(rehearsal: Rehearsal) -> str:
    """What was lost, by whom. A run that proves nothing is never counted for Tidegate."""
    gated = [run for run in rehearsal.runs if run.row.is_gated]
    if any(run.invalid for run in gated):
        return "A Tidegate run is invalid: nothing is proven"
    counts = [run.tally for run in gated or rehearsal.runs]
    dropped, requests = sum(count.dropped for count in counts), sum(count.requests for count in counts)
    alone = "A rolling update" if len(rehearsal.runs) == 1 else f"{len(rehearsal.runs)} rolling updates"
    who = "Tidegate" if gated else f"{alone} without Tidegate"
    return f"{who} lost {dropped:,} of {requests:,} requests".replace(",", THIN_SPACE)


def _seal(rehearsal: Rehearsal, verdict: Verdict) -> tuple[str, str]:
    """The badge's class and words. Only Tidegate's own rows can earn the good one."""
    gated = [run for run in rehearsal.runs if run.row.is_gated]
    if verdict.exit_code:
        return "bad", f"exit code {verdict.exit_code}"
    if not gated:
        return "none", "no Tidegate row was played"
    return "good", "Tidegate: every drain verified, nothing lost"


def _head(rehearsal: Rehearsal, verdict: Verdict, made_at: str) -> str:
    settings = rehearsal.settings
    kind, words = _seal(rehearsal, verdict)
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in verdict.reasons)
    sentence = table.comparison(rehearsal)
    ways = (
        "One rolling update." if len(rehearsal.runs) == 1 else f"The same rolling update, {len(rehearsal.runs)} ways."
    )
    lede = f"{ways} {sentence[:1].upper()}{sentence[1:]}"
    meta = (
        f"{made_at} · seed {settings.seed} · {len(rehearsal.nodes)} nodes · {settings.replicas} replicas · surge "
        f"{settings.max_surge}, unavailable {settings.max_unavailable} · {settings.rate_per_second:g} requests/s, "
        "open loop, no retries"
    )
    return f"""<p class="eyebrow">Tidegate rehearsal</p>
<h1>{escape(_title(rehearsal))}</h1>
<p class="lede">{escape(lede)} <span class="verdict {kind}">{escape(words)}</span></p>
<p class="meta">{escape(meta)}</p>
{f'<ul class="reasons">{reasons}</ul>' if reasons else ""}"""


def _overview(rehearsal: Rehearsal) -> str:
    slowest = max([run.timeline.rollout_seconds or 0.0 for run in rehearsal.runs] or [0.0]) or 1.0
    largest = max([run.timeline.excess_pod_seconds for run in rehearsal.runs] or [0.0]) or 1.0
    rows = "\n".join(_overview_row(run, slowest, largest) for run in rehearsal.runs)
    return f"""<section class="card scroll"><table>
<thead><tr><th>run</th><th class="num">requests</th><th>dropped</th><th>rollout</th><th>excess pod-seconds</th>
<th class="num">drain p50</th><th class="num">drain max</th><th>drains</th></tr></thead>
<tbody>
{rows}
</tbody></table></section>"""


def _overview_row(run: Run, slowest: float, largest: float) -> str:
    line = run.timeline
    gated = ' class="gated"' if run.row.is_gated else ""
    rollout = line.rollout_seconds or 0.0
    return (
        f'<tr{gated}><td class="name"><a href="#{run.row.namespace}">{escape(run.row.name)}</a></td>'
        f'<td class="num">{run.tally.requests}</td><td>{_dropped(run)}</td>'
        f"<td>{_bar(table.seconds(line.rollout_seconds), rollout / slowest)}</td>"
        f"<td>{_bar(f'{line.excess_pod_seconds:.1f}', line.excess_pod_seconds / largest, 'excess')}</td>"
        f'<td class="num">{line.drain_p50:.2f} s</td><td class="num">{line.drain_max:.2f} s</td>'
        f"<td>{_results(run)}</td></tr>"
    )


def _bar(words: str, share: float, kind: str = "") -> str:
    width = round(90 * min(1.0, share), 1)
    return f'<div class="bar {kind}"><i style="width:{width}px"></i><span>{escape(words)}</span></div>'


def _dropped(run: Run) -> str:
    counts = run.tally
    if not counts.dropped:
        return '<span class="zero">0</span>'
    parts = ", ".join(f"{cause} {count}" for cause, count in counts.dropped_by_cause)
    return f'<span class="lost">{counts.dropped}</span> <span class="why">{escape(parts)}</span>'


def _results(run: Run) -> str:
    found = {drain.result for drain in run.drains}
    kind = "why" if found <= {"ungated"} else "zero" if found == {"verified"} else "lost"
    return f'<span class="{kind}">{escape(table.results(run))}</span>'


PATTERNS = (
    '<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs>'
    '<pattern id="stale" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<line class="hatch" x1="0" x2="0" y1="0" y2="5"/></pattern>'
    '<pattern id="cut" width="4" height="4" patternUnits="userSpaceOnUse">'
    '<rect class="ground" width="4" height="4"/><line class="stripe" x1="2" x2="2" y1="0" y2="4"/></pattern>'
    "</defs></svg>"
)
"""What tells the states apart where colours do not: on paper, and for those who see fewer of them."""


def _legend() -> str:
    marks = []
    for kind, words in LEGEND:
        tall = 11 - (chart.BAR - chart.height(kind))
        box = f'<rect class="{kind}" x="0.5" y="{6 - tall / 2}" width="25" height="{tall}" rx="2"/>'
        marks.append(f'<span><svg viewBox="0 0 26 12">{box}</svg>{escape(words)}</span>')
    lines = (
        ('<line class="term" x1="13" x2="13" y1="0" y2="12"/>', "SIGTERM"),
        ('<polygon class="floor" points="13,2 9,9 17,9"/>', "could have been proven"),
        ('<rect class="cut" x="0.5" y="0.5" width="25" height="11" rx="2"/>'
         '<circle class="node" cx="13" cy="6" r="2.6"/>', "a node stopped routing"),
        ('<line class="hit" x1="13" x2="13" y1="2" y2="10"/>', "requests lost here"),
    )  # fmt: skip
    marks += [f'<span><svg viewBox="0 0 26 12">{mark}</svg>{escape(words)}</span>' for mark, words in lines]
    return f'{PATTERNS}<p class="legend">{"".join(marks)}</p>'


def _section(run: Run, scale: chart.Scale) -> str:
    line, counts = run.timeline, run.tally
    words = WORDS[run.row.hook](run.row)
    if run.row.lag_seconds:
        words += f" One node's proxy lags {run.row.lag_seconds:g} s behind."
    facts: tuple[tuple[str, str], ...] = (
        ("dropped", _dropped(run)),
        ("rollout", table.seconds(line.rollout_seconds)),
        ("excess pod-seconds", f"{line.excess_pod_seconds:.1f}"),
        ("DELETE to SIGTERM, p50 / max", f"{line.drain_p50:.2f} / {line.drain_max:.2f} s"),
        (
            "latency p50 / p99",
            f"{_milliseconds(counts.latency_p50_seconds)} / {_milliseconds(counts.latency_p99_seconds)}",
        ),
    )
    if line.overheads:
        over = f"{_milliseconds(quantile(line.overheads, 0.5))} / {_milliseconds(line.overheads[-1])}"
        facts += (("over the floor, p50 / max", over),)
    items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    invalid = f'<ul class="reasons"><li>This run is invalid: {escape(run.invalid)}.</li></ul>' if run.invalid else ""
    return f"""<section class="card run" id="{run.row.namespace}">
<header><h2>{escape(run.row.name)}</h2><p>{escape(words)}</p></header>
{invalid}<dl class="facts">{items}</dl>
<div class="scroll">{chart.chart(line, scale)}</div>
{_drains(run)}
</section>"""


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def _drains(run: Run) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(drain.pod)}</code></td><td>{escape(drain.result)}</td>{_drain_cells(track)}"
        f"<td>{escape(drain.reason)}{escape(' ' + ', '.join(drain.stragglers) if drain.stragglers else '')}</td></tr>"
        for drain, track in zip(run.drains, run.timeline.old, strict=True)
    )
    return f"""<details><summary>The end of each old pod</summary><div class="scroll"><table>
<thead><tr><th>pod</th><th>result</th><th class="num">DELETE to SIGTERM</th><th class="num">last route gone</th>
<th class="num">over the floor</th><th class="num">lost</th><th>reason</th></tr></thead>
<tbody>{rows}</tbody></table></div></details>"""


def _drain_cells(track: PodTrack) -> str:
    deleted = track.seen.deleted_at
    last = max((gone.at for gone in track.unrouted), default=None)
    routes = "" if last is None or deleted is None else f"{last - deleted:.2f} s"
    drain = "" if track.drain_seconds is None else f"{track.drain_seconds:.2f} s"
    floor = "" if track.floor is None else _milliseconds(track.floor.overhead_seconds)
    lost = f'<span class="lost">{track.lost}</span>' if track.lost else "0"
    return "".join(f'<td class="num">{cell}</td>' for cell in (drain, routes, floor, lost))


def _foot(rehearsal: Rehearsal) -> str:
    settings = rehearsal.settings
    return f"""<footer><p>A request is dropped when no complete 2xx came within 5 s of its scheduled instant; the
client never retries. Half the load opens a connection per request, half uses kept connections that retire after 1 s.
A rollout ends when every new pod is ready and the last old process is gone. Excess pod-seconds: the integral of live
pods above {settings.replicas}, from the patch until then. Times are seconds after the template was patched; all charts
have one scale.</p>
<p>The lab's nodes run a model of kube-proxy with its measured timing. It is a lab: its speed is no claim about a
cluster, the order of events is.</p></footer>"""
