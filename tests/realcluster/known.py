"""Where the lab is known to answer otherwise than Kubernetes 1.36.2; docs/lab.md says the same to users.

Each entry: what is different, and the lines of ``twin.differences`` that it explains.
"""

from __future__ import annotations

import re

KNOWN = (
    ("Items of a list carry apiVersion and kind.", r"\.items\[\d+\]\.(apiVersion|kind): real nothing, lab "),
    (
        "Malformed JSON is complained about in other words.",
        r"real .*invalid character|json parse error|cannot unmarshal",
    ),
    ("A pod update that is refused shows what changed in fewer words.", r"Forbidden: pod updates may not change"),
    (
        "A patch whose result is no object is shown without managedFields",
        r"patch: Invalid value: |Invalid value: \W+apiVersion",
    ),
    (
        "A cause in the details of a ConfigMap's update may be repeated less often.",
        r"configmaps/\S+: \.body\.details\.causes: ",
    ),
    ("A pattern that does not compile is complained about in other words.", r"must be a valid regular expression"),
    ("Why an address in a rule is none is told in other words.", r"parse error during conversion from string"),
    ("The columns of a Table have no description.", r"\.columnDefinitions\[\d+\]\.description: "),
)


def unknown(differences: list[str]) -> list[str]:
    """The differences nothing in ``KNOWN`` explains."""
    patterns = [re.compile(pattern) for _, pattern in KNOWN]
    return [line for line in differences if not any(pattern.search(line) for pattern in patterns)]
