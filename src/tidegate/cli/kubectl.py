"""``kubectl_complete-tidegate``: what kubectl asks when somebody presses TAB after ``kubectl tidegate ...``.

It is called with the words so far, the last of them unfinished or empty, and prints a choice a line (a tab, and what it
is), then ``:`` and a number that says what the shell may add of its own (k8s kubectl plugin_completion.go; the numbers
are cobra's ShellCompDirective).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

NOTHING_ELSE, FILES, FOLDERS = 4, 0, 16


def choices(words: Sequence[str]) -> tuple[list[str], int]:
    """The lines, and the directive. Raises nothing of its own; a cluster that cannot be asked has no names."""
    from click.shell_completion import ShellComplete

    from tidegate.cli.main import tidegate

    *before, unfinished = words or [""]
    found = ShellComplete(tidegate, {}, "kubectl tidegate", "").get_completions(before, unfinished)
    kinds = {one.type for one in found}
    if "file" in kinds:
        return [], FILES
    if "dir" in kinds:
        return [], FOLDERS
    lines = [f"{one.value}\t{' '.join(one.help.split())}" if one.help else str(one.value) for one in found]
    return lines, NOTHING_ELSE


def complete() -> NoReturn:
    """The program. Whatever goes wrong, a shell's line is not written over: no choices then."""
    try:
        lines, directive = choices(sys.argv[1:])
        print(*lines, f":{directive}", sep="\n")
    except (Exception, KeyboardInterrupt):
        sys.exit(1)
    sys.exit(0)
