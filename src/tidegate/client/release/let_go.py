"""Pods whose drain by label was begun, ended as they are: who asked for it lets pods without a gate go unverified."""

from __future__ import annotations

from tidegate import vtime
from tidegate.client.lease import is_at_work
from tidegate.client.release.ground import Failed, Ground
from tidegate.client.release.look import Sight
from tidegate.client.reservation import sweep
from tidegate.client.scraping import see_to
from tidegate.engine import act
from tidegate.kube.api import PODS
from tidegate.kube.errors import ApiError
from tidegate.model import pod
from tidegate.model.names import decode_drain
from tidegate.release.plan import Step


async def let_go(ground: Ground, sight: Sight, step: Step) -> None:
    """Each as it is now. Raises ``Failed`` while another process is at work on one, by its lease."""
    namespace = sight.entry.namespace
    for name in step.pods:
        try:
            one = pod.decode(await ground.client.get(PODS, name, namespace))
            record = decode_drain(one.annotations)
            if one.owner is not None or one.is_terminating or record is None:
                continue  # it was given back, or is on its way out
            if is_at_work(record, ground.identity, vtime.now()):
                raise Failed(f"pod/{name} is being drained by {record.by or record.holder} still")
            await act.end(ground.client, one)
        except ApiError as error:
            if not error.is_not_found:
                raise
    await see_to(ground.client, namespace)
    await sweep(ground.client, namespace)
