"""Where the lab is known to answer otherwise than Kubernetes 1.36.2; docs/lab.md says the same to users.

Each entry: what is different, and the lines of ``twin.differences`` that it explains.
"""

from __future__ import annotations

import re

KNOWN = (
    ("items of a list carry apiVersion and kind", r"\.items\[\d+\]\.(apiVersion|kind): real nothing, lab "),
    ("the words about malformed JSON", r"real .*invalid character|json parse error|cannot unmarshal"),
    ("a pod update that is refused shows what changed in fewer words", r"Forbidden: pod updates may not change"),
    (
        "a patch that leads nowhere is shown without managedFields",
        r"patch: Invalid value: |Invalid value: \W+apiVersion",
    ),
    (
        "how often one cause is repeated in details of a ConfigMap's update",
        r"configmaps/\S+: \.body\.details\.causes: ",
    ),
    ("the columns of a Table have no description", r"\.columnDefinitions\[\d+\]\.description: "),
)


def unknown(differences: list[str]) -> list[str]:
    """The differences nothing in ``KNOWN`` explains."""
    patterns = [re.compile(pattern) for _, pattern in KNOWN]
    return [line for line in differences if not any(pattern.search(line) for pattern in patterns)]
