"""The table, as a reader sees it."""

from __future__ import annotations

from typing import Any

from inline_snapshot import snapshot
from rich.console import Console

from tidegate.rehearse import table


def test_the_plain_table_has_a_line_per_row(rehearsal: Any) -> None:
    assert table.plain(rehearsal()) == snapshot("""\
RUN           REQUESTS  DROPPED                        ROLLOUT  EXCESS POD-S  DRAIN P50  DRAIN MAX  DRAINS
plain         10040     276 (refused 85, reset 191)    2.7 s    2.8           0.01 s     0.01 s     4 ungated
sleep-5       10040     0                              7.8 s    22.8          5.01 s     5.02 s     4 ungated
sleep-15      10040     0                              17.8 s   62.8          15.02 s    15.03 s    4 ungated
tidegate      10040     0                              3.9 s    7.3           1.15 s     1.20 s     4 verified
sleep-5+lag   10040     1376 (refused 463, reset 913)  7.7 s    22.9          5.02 s     5.02 s     4 ungated
tidegate+lag  10040     0                              11.5 s   38.1          8.77 s     8.87 s     4 verified\
""")


def test_the_terminal_table_says_the_same_words(rehearsal: Any) -> None:
    made = rehearsal()
    console = Console(width=150, no_color=True)
    with console.capture() as capture:
        console.print(table.rich_table(made))
    shown = " ".join(capture.get().split())
    for line in table.plain(made).splitlines()[1:]:
        for word in line.split("  "):
            assert word.strip() in shown
    assert all(word in shown for heading in table.HEADINGS for word in heading.split())


def test_eighty_columns_are_enough_for_the_table(rehearsal: Any) -> None:
    made = rehearsal()
    console = Console(width=80, no_color=True)
    with console.capture() as capture:
        console.print(table.rich_table(made))
    assert "\n".join(line.rstrip() for line in capture.get().splitlines()) == snapshot("""\
                                            EXCESS    DRAIN    DRAIN
RUN           REQUESTS  DROPPED    ROLLOUT   POD-S      P50      MAX  DRAINS
────────────────────────────────────────────────────────────────────────────────
plain            10040  276          2.7 s     2.8   0.01 s   0.01 s  4 ungated
                        (refused
                        85, reset
                        191)
sleep-5          10040  0            7.8 s    22.8   5.01 s   5.02 s  4 ungated
sleep-15         10040  0           17.8 s    62.8  15.02 s  15.03 s  4 ungated
tidegate         10040  0            3.9 s     7.3   1.15 s   1.20 s  4 verified
sleep-5+lag      10040  1376         7.7 s    22.9   5.02 s   5.02 s  4 ungated
                        (refused
                        463,
                        reset
                        913)
tidegate+lag     10040  0           11.5 s    38.1   8.77 s   8.87 s  4 verified\
""")


def test_the_comparison_is_one_sentence(rehearsal: Any) -> None:
    assert table.comparison(rehearsal()) == snapshot(
        "tidegate rolled out 4.5 times as fast as sleep-15, with 1/8.6 of its excess pod-seconds, "
        "and dropped 0 of 10040 requests."
    )
