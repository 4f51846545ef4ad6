"""Draws the drain table, for ``docs/protocol.md``: the picture is the table, a test compares the two."""

from __future__ import annotations

from tidegate.drain.event import EVENTS, Event
from tidegate.drain.state import State
from tidegate.drain.table import ONLY, RULES, TRANSITIONS, Rule

UNDER_WAY = (State.CUT, State.CLEAN, State.FENCED, State.UNROUTED, State.QUIET)
"""Drawn as one box: what leads out of all of them is drawn once."""

ROAD = (State.SERVING, *UNDER_WAY, State.DRAINED, State.RELEASED, State.GONE)


def _name(event: type[Event]) -> str:
    """``Tombstoned (label)``: an event of one mode says which."""
    mode = ONLY.get(event)
    return f"{event.__name__} ({mode.value})" if mode else event.__name__


def _rule_text(rule: Rule) -> str:
    asked = (rule.when.__doc__ or rule.when.__name__).strip()
    return f"[{asked}]" if rule.holds else f"[no longer: {asked}]"


def _edges(state: State) -> list[tuple[str, State]]:
    """What leads from ``state`` to another one: events in their order, then rules."""
    row = TRANSITIONS[state]
    edges = [(_name(event), row[event]) for event in EVENTS if event in row and row[event] is not state]
    return edges + [(_rule_text(rule), rule.then) for rule in RULES if state in rule.where]


def mermaid() -> str:
    """The table as a Mermaid state diagram."""
    shared = [edge for edge in _edges(State.CUT) if edge[1] not in UNDER_WAY]
    shared = [edge for edge in shared if all(edge in _edges(state) for state in UNDER_WAY)]
    lines = [
        "stateDiagram-v2",
        "    direction TB",
        "    [*] --> SERVING",
        "    state under_way {",
        "        direction TB",
    ]
    for state in UNDER_WAY:
        inner = [(label, to) for label, to in _edges(state) if (label, to) not in shared and to in UNDER_WAY]
        lines += [f"        {state.name} --> {to.name}: {label}" for label, to in inner]
    lines.append("    }")
    lines += [f"    under_way --> {to.name}: {label}" for label, to in shared]
    for state in State:
        for label, to in _edges(state):
            if (state not in UNDER_WAY or to not in UNDER_WAY) and not (state in UNDER_WAY and (label, to) in shared):
                lines.append(f"    {state.name} --> {to.name}: {label}")
    lines += [f"    {state.name} --> [*]" for state in State if state.is_over]
    return "\n".join(lines)


def text() -> str:
    """The table as text: the road that a verified drain takes, then every way off it."""
    lines: list[str] = []
    off: dict[tuple[str, State], list[str]] = {}
    for here, there in zip(ROAD, (*ROAD[1:], None), strict=True):
        lines.append(f"{here.name:<9} {here.meaning}")
        lines += [f"    |  {label}" for label, to in _edges(here) if to is there]
    for state in State:
        is_on_road = state in ROAD and state is not ROAD[-1]
        onward = ROAD[ROAD.index(state) + 1] if is_on_road else None
        for label, to in _edges(state):
            if to is not onward:
                off.setdefault((label, to), []).append(state.name)
    lines.append("")
    lines += [f"{state.name:<9} {state.meaning}" for state in State if state not in ROAD]
    lines.append("")
    wide = max(len(label) for label, _ in off)
    lines += [f"{label:<{wide}}  -> {to.name:<9} from {' '.join(sources)}" for (label, to), sources in off.items()]
    return "\n".join(lines)
