"""The rules a Job may carry: completed indexes as text, podFailurePolicy and successPolicy."""

from __future__ import annotations

from collections.abc import Iterable

from tidegate.kube.api import JsonObject
from tidegate.lab.controllers.pods import phase


def indexes_from(text: str, completions: int) -> set[int]:
    """``"1,3-5"`` as numbers below ``completions``."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        if first.isdigit() and (last or first).isdigit():
            found.update(range(int(first), min(int(last or first), completions - 1) + 1))
    return found


def indexes_text(indexes: Iterable[int]) -> str:
    """Numbers as ``"1,3-5"``; a pair is written with a comma."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and runs[-1][1] == index - 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    texts = []
    for first, last in runs:
        mark = "," if last == first + 1 else "-"
        texts.append(str(first) if first == last else f"{first}{mark}{last}")
    return ",".join(texts)


def failure_action(job: JsonObject, pod: JsonObject) -> tuple[str, str]:
    """What podFailurePolicy says of a failed pod: an action ("" for none) and, for FailJob, the message."""
    rules = (job["spec"].get("podFailurePolicy") or {}).get("rules") or ()
    meta = pod["metadata"]
    for number, rule in enumerate(rules):
        if rule.get("onExitCodes"):
            status = _matching_container(pod, rule["onExitCodes"])
            if status is None:
                continue
            code = status["state"]["terminated"]["exitCode"]
            text = f"Container {status['name']} for pod {meta['namespace']}/{meta['name']} failed with exit code {code}"
        else:
            kind = _matching_condition(pod, rule.get("onPodConditions") or ())
            if not kind:
                continue
            text = f"Pod {meta['namespace']}/{meta['name']} has condition {kind}"
        if rule["action"] != "FailIndex":
            return rule["action"], f"{text} matching {rule['action']} rule at index {number}"
    return "", ""


def _matching_container(pod: JsonObject, wanted: JsonObject) -> JsonObject | None:
    status = pod.get("status") or {}
    for one in [*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ())]:
        code = ((one.get("state") or {}).get("terminated") or {}).get("exitCode")
        if not code or wanted.get("containerName") not in (None, one["name"]):
            continue
        if (code in wanted["values"]) == (wanted["operator"] == "In"):
            return dict(one)
    return None


def _matching_condition(pod: JsonObject, patterns: Iterable[JsonObject]) -> str:
    for held in (pod.get("status") or {}).get("conditions") or ():
        if any((held["type"], held["status"]) == (one["type"], one.get("status", "True")) for one in patterns):
            return str(held["type"])
    return ""


def met_success_rule(job: JsonObject, succeeded: set[int]) -> str:
    """The message of the first successPolicy rule that the succeeded indexes meet; "" for none."""
    rules = (job["spec"].get("successPolicy") or {}).get("rules") or ()
    for number, rule in enumerate(rules):
        named, count = rule.get("succeededIndexes"), rule.get("succeededCount")
        if named is not None:
            wanted = indexes_from(named, int(job["spec"]["completions"]))
            fitting = len(wanted & succeeded)
            is_met = bool(wanted) and (fitting == len(wanted) or (count is not None and fitting >= count))
        else:
            is_met = count is not None and len(succeeded) >= count
        if is_met and succeeded:
            return f"Matched rules at index {number}"
    return ""


def restarts_exceed(job: JsonObject, pods: Iterable[JsonObject]) -> bool:
    """restartPolicy OnFailure: the restarts of the running pods count against backoffLimit."""
    if job["spec"]["template"]["spec"].get("restartPolicy") != "OnFailure":
        return False
    total, limit = 0, int(job["spec"].get("backoffLimit", 6))
    for pod in pods:
        if phase(pod) in ("Running", "Pending"):
            status = pod.get("status") or {}
            held = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
            total += sum(int(one.get("restartCount") or 0) for one in held)
    return total > 0 if limit == 0 else total >= limit
