"""One rolling update as an SVG: lost requests above, a row per pod, live pods below. Pure text, no library.

Colours are classes; the page's stylesheet gives them a light and a dark value. No state is told by colour alone: it
has a texture or a height of its own. Every mark carries its words in ``data-tip``, and in an SVG ``title`` for
readers without scripts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from tidegate.rehearse.timeline import Loss, PodTrack, Span, Timeline

WIDTH = 1130
LEFT = 150
RIGHT = 14
ROW = 21
BAR = 13
STRIP = 46
LIVE = 46
LIVE_STEP = 7.0
"""Pixels per live pod, less when there are many."""
BIN_SECONDS = 0.1

CAUSES_DRAWN = ("timeout", "refused", "reset", "5xx", "non-2xx", "client-error")
"""From the strip's foot upwards."""


def height(state: str) -> int:
    """A bar's height in pixels: thin while draining, so that paper tells it from ready."""
    return BAR - 6 if state == "draining" else BAR


@dataclass(frozen=True, slots=True)
class Scale:
    """Seconds after the patch to pixels; the same for all charts of a report, so that they can be compared."""

    first: float
    last: float

    def x(self, seconds: float) -> float:
        share = (min(max(seconds, self.first), self.last) - self.first) / (self.last - self.first)
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 2)


def common_scale(timelines: Sequence[Timeline]) -> Scale:
    """From one second before the patch to the end of the longest run."""
    ends = [line.update.ended_at - line.update.patched_at for line in timelines]
    starts = [line.update.started_at - line.update.patched_at for line in timelines]
    return Scale(min([-1.0, *starts]), max([5.0, *ends]))


def chart(line: Timeline, scale: Scale) -> str:
    """The SVG of one run."""
    top = STRIP + 26
    pods = top + ROW * len(line.tracks)
    tall = pods + LIVE + 40
    tracks = sorted(line.tracks, key=lambda track: (not track.is_old, track.seen.deleted_at or track.seen.created_at))
    parts = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {tall}" role="img" aria-label="{escape(_summary(line))}">',
        _grid(scale, pods + LIVE + 14),
        _beyond(line, scale, pods + LIVE + 14),
        _strip(line, scale),
        *(_pod(track, line, scale, top + ROW * index) for index, track in enumerate(tracks)),
        _live(line, scale, pods + 12),
        _marks(line, scale, pods + LIVE + 14),
        "</svg>",
    ]
    return "\n".join(part for part in parts if part)


def _summary(line: Timeline) -> str:
    return f"Timeline of {len(line.tracks)} pods; {len(line.losses)} requests lost. The table below has the figures."


def _mark(tag: str, tip: str, **attributes: object) -> str:
    """One SVG element; ``class_`` is class, underscores in other names are hyphens. A tip makes it explain itself."""
    names = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
    text = " ".join(f'{name}="{escape(str(value))}"' for name, value in names.items())
    if not tip:
        return f"<{tag} {text}/>"
    return f'<{tag} {text} data-tip="{escape(tip)}"><title>{escape(tip)}</title></{tag}>'


def _text(x: float, y: float, words: str, class_: str = "", anchor: str = "start") -> str:
    return f'<text x="{x}" y="{y}" class="{class_}" text-anchor="{anchor}">{escape(words)}</text>'


def _grid(scale: Scale, height: float) -> str:
    step = 1 if scale.last - scale.first <= 14 else 2 if scale.last - scale.first <= 28 else 5
    parts = []
    for second in range(math.ceil(scale.first / step) * step, math.floor(scale.last) + 1, step):
        x = scale.x(second)
        parts.append(_mark("line", "", x1=x, x2=x, y1=18, y2=height, class_="grid"))
        if second:
            parts.append(_text(x, height + 15, f"{second} s", "axis", "middle"))
    return "".join(parts)


def _beyond(line: Timeline, scale: Scale, height: float) -> str:
    """Shade what lies after this run's end."""
    x = scale.x(line.update.ended_at - line.update.patched_at)
    if x >= scale.x(scale.last) - 1:
        return ""
    width = round(scale.x(scale.last) - x, 2)
    return _mark("rect", "", x=x, y=18, width=width, height=height - 18, class_="over")


def _marks(line: Timeline, scale: Scale, height: float) -> str:
    """The patch, and the end of the rollout."""
    parts = []
    instants = [(0.0, "patch")]
    if line.rollout_seconds is not None:
        instants.append((line.rollout_seconds, f"done after {line.rollout_seconds:.1f} s"))
    for at, words in instants:
        x = scale.x(at)
        parts.append(_mark("line", "", x1=x, x2=x, y1=16, y2=height, class_="mark"))
        is_tight = at and x > WIDTH - 120
        parts.append(_text(x, 11, words, "label", "end" if is_tight else "middle" if not at else "start"))
    return "".join(parts)


def _strip(line: Timeline, scale: Scale) -> str:
    """Lost requests per tenth of a second, stacked by cause; the tallest bin fills the strip."""
    foot = STRIP + 18
    bins: dict[int, list[Loss]] = {}
    for loss in line.losses:
        bins.setdefault(math.floor((loss.at - line.update.patched_at) / BIN_SECONDS), []).append(loss)
    parts = [_text(LEFT - 10, foot - 4, "lost requests", "axis", "end")]
    start, end = (at - line.update.patched_at for at in (line.update.started_at, line.update.ended_at))
    parts.append(_mark("line", "", x1=scale.x(start), x2=scale.x(end), y1=foot, y2=foot, class_="quiet"))
    if not bins:
        parts.append(_text(LEFT + 6, foot - 7, "none", "none"))
        return "".join(parts)
    tallest = max(len(losses) for losses in bins.values())
    parts.append(_text(LEFT - 10, foot - 17, f"up to {tallest} in {BIN_SECONDS:g} s", "axis", "end"))
    width = max(2.0, scale.x(scale.first + BIN_SECONDS) - LEFT - 0.6)
    for index, losses in sorted(bins.items()):
        y = float(foot - 1)
        for cause in CAUSES_DRAWN:
            count = sum(1 for loss in losses if loss.cause == cause)
            if count:
                tall = round(max(1.5, (STRIP - 4) * count / tallest), 2)
                y -= tall
                tip = _loss_tip(index * BIN_SECONDS, cause, [loss for loss in losses if loss.cause == cause])
                box = {"x": scale.x(index * BIN_SECONDS), "y": round(y, 2), "width": round(width, 2), "height": tall}
                parts.append(_mark("rect", tip, **box, class_=f"loss {cause}"))
    return "".join(parts)


def _loss_tip(at: float, cause: str, losses: Sequence[Loss]) -> str:
    pods = _counted(loss.pod or "pod not known" for loss in losses)
    nodes = _counted(loss.source for loss in losses)
    return f"{len(losses)} lost, {cause}, at {at:.1f} s\n{pods}\nfrom {nodes}"


def _counted(names: Iterable[str]) -> str:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{name} ×{count}" for name, count in sorted(counts.items()))


def _pod(track: PodTrack, line: Timeline, scale: Scale, y: float) -> str:
    """One pod's row."""
    zero = line.update.patched_at
    label = f"{track.seen.version}  {track.seen.name.rpartition('-')[2]}"
    parts = [_text(LEFT - 10, y + BAR - 2, label, "pod", "end")]
    parts += [_span(span, track, scale, zero, y) for span in track.spans]
    stale = track.stale
    if stale is not None:
        x, end = scale.x(stale[0] - zero), scale.x(stale[1] - zero)
        nodes = ", ".join(gone.node for gone in track.unrouted if gone.at > stale[0])
        tip = f"gone, yet still routed to by {nodes}\nfor {stale[1] - stale[0]:.2f} s: {track.lost} requests lost here"
        box = {"x": x, "y": y + 1, "width": round(max(1.5, end - x), 2), "height": BAR - 2, "rx": 2}
        parts.append(_mark("rect", tip, **box, class_="stale"))
    for gone in track.unrouted:
        if gone.at != math.inf and (track.exited_at is None or gone.at <= track.exited_at):
            tip = f"{gone.node} stopped routing here at {gone.at - zero:.2f} s"
            parts.append(_mark("circle", tip, cx=scale.x(gone.at - zero), cy=y + BAR / 2, r=2.4, class_="node"))
    parts += _hits(track, line, scale, y)
    parts += _end_marks(track, scale, zero, y)
    return "".join(parts)


def _span(span: Span, track: PodTrack, scale: Scale, zero: float, y: float) -> str:
    x, end = scale.x(span.start_at - zero), scale.x(span.end_at - zero)
    if end <= x:
        return ""
    if span.state == "gone":
        return _mark("line", "", x1=x + 4, x2=end, y1=y + BAR / 2, y2=y + BAR / 2, class_="gone")
    tip = f"{track.seen.name} ({track.seen.version}) on {track.seen.node or 'no node'}\n{span.state} "
    tip += f"{span.end_at - span.start_at:.2f} s, until {span.end_at - zero:.2f} s"
    tall = height(span.state)
    box = {"x": x, "y": y + (BAR - tall) / 2, "width": round(max(0.8, end - x), 2), "height": tall, "rx": 2}
    return _mark("rect", tip, **box, class_=span.state if track.is_old else f"{span.state} new")


def _hits(track: PodTrack, line: Timeline, scale: Scale, y: float) -> list[str]:
    """A tick under the pod's bar wherever it lost requests."""
    zero = line.update.patched_at
    bins: dict[int, int] = {}
    for loss in line.losses:
        if loss.pod == track.seen.name:
            index = math.floor((loss.at - zero) / BIN_SECONDS * 2)
            bins[index] = bins.get(index, 0) + 1
    parts = []
    for index, count in sorted(bins.items()):
        x = scale.x((index + 0.5) * BIN_SECONDS / 2)
        parts.append(
            _mark("line", f"{count} lost at {track.seen.name}", x1=x, x2=x, y1=y + BAR, y2=y + BAR + 4, class_="hit")
        )
    return parts


def _end_marks(track: PodTrack, scale: Scale, zero: float, y: float) -> list[str]:
    """SIGTERM, and the earliest instant at which it could have been sent."""
    parts = []
    if track.floor is not None:
        x = scale.x(track.floor.at - zero)
        tip = f"could have been proven at {track.floor.at - zero:.2f} s\n"
        tip += f"{track.floor.overhead_seconds * 1000:.0f} ms before the SIGTERM"
        points = f"{x},{y + BAR + 1} {x - 3},{y + BAR + 5} {x + 3},{y + BAR + 5}"
        parts.append(_mark("polygon", tip, points=points, class_="floor"))
    if track.sigterm_at is not None and track.seen.deleted_at is not None:
        x = scale.x(track.sigterm_at - zero)
        tip = f"SIGTERM at {track.sigterm_at - zero:.2f} s, {track.drain_seconds or 0:.2f} s after the DELETE"
        parts.append(_mark("line", tip, x1=x, x2=x, y1=y - 2, y2=y + BAR + 2, class_="term"))
    return parts


def _live(line: Timeline, scale: Scale, top: float) -> str:
    """Live pods over time; the area above the replicas is the excess."""
    zero, replicas = line.update.patched_at, line.update.replicas
    end = line.update.ended_at
    steps = _live_steps(line)
    most = max([replicas + 1, *(count for _, _, count in steps)])
    step = min(LIVE_STEP, (LIVE - 10) / (most - replicas + 1))

    def y(count: float) -> float:
        return round(top + LIVE - step - (max(count, replicas - 1) - replicas) * step, 2)

    parts = [_text(LEFT - 10, y(replicas) + 4, f"{replicas} live pods", "axis", "end")]
    path = ""
    for since, until, count in steps:
        x1, x2 = scale.x(since - zero), scale.x(until - zero)
        if count > replicas and since >= zero:
            tip = f"{count} live pods, {count - replicas} more than asked for, for {until - since:.2f} s"
            box = {"x": x1, "y": y(count), "width": round(x2 - x1, 2), "height": round(y(replicas) - y(count), 2)}
            parts.append(_mark("rect", tip, **box, class_="excess"))
        path += f"{'L' if path else 'M'}{x1} {y(count)}L{x2} {y(count)}"
    left, right = scale.x(line.update.started_at - zero), scale.x(end - zero)
    parts.append(_mark("line", "", x1=left, x2=right, y1=y(replicas), y2=y(replicas), class_="want"))
    parts.append(_mark("path", "", d=path or "M0 0", class_="live"))
    return "".join(parts)


def _live_steps(line: Timeline) -> list[tuple[float, float, int]]:
    """(from, until, live pods) over the run, in order."""
    changes: list[tuple[float, int]] = []
    for track in line.tracks:
        for since, until in track.alive:
            changes += [(since, 1), (until, -1)]
    changes.sort()
    steps: list[tuple[float, float, int]] = []
    live, before = 0, line.update.started_at
    for at, change in [*changes, (math.inf, 0)]:
        until = min(at, line.update.ended_at)
        if until > before:
            steps.append((before, until, live))
            before = until
        live += change
    return steps
