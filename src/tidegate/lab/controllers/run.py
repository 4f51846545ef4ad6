"""All controllers of a lab over one set of shared copies."""

from __future__ import annotations

from tidegate.kube.api import Api
from tidegate.lab.config import LabConfig
from tidegate.lab.controllers.accounts import NamespaceFurnisher
from tidegate.lab.controllers.autoscaler import AutoscalerController
from tidegate.lab.controllers.bootstrap import Bootstrap
from tidegate.lab.controllers.cache import Caches
from tidegate.lab.controllers.customs import CustomKinds
from tidegate.lab.controllers.daemonset import DaemonSetController
from tidegate.lab.controllers.deployment import DeploymentController
from tidegate.lab.controllers.disruption import DisruptionController
from tidegate.lab.controllers.endpoints import EndpointsController
from tidegate.lab.controllers.endpointslice import EndpointSliceController
from tidegate.lab.controllers.eviction import TaintEvictionController
from tidegate.lab.controllers.expiry import expire_events
from tidegate.lab.controllers.garbage import GarbageCollector
from tidegate.lab.controllers.job import JobController, JobOrphanController
from tidegate.lab.controllers.kinds import served
from tidegate.lab.controllers.mirroring import MirroringController
from tidegate.lab.controllers.namespace import NamespaceController
from tidegate.lab.controllers.node import NodeController
from tidegate.lab.controllers.podgc import PodCollector
from tidegate.lab.controllers.replicaset import ReplicaSetController
from tidegate.lab.controllers.shell import Controller, World
from tidegate.lab.controllers.statefulset import StatefulSetController
from tidegate.vtime import Nursery


async def run_controllers(api: Api, config: LabConfig) -> None:
    """Run every controller for ever; cancelling it ends them all.

    Nothing is drawn at random: generated names are the server's to draw, every choice follows from the objects.
    """
    resources = await served(api)
    world = World(api, Caches(api), config)
    controllers: list[Controller] = [
        # The endpoint controllers come first: their lag is what a lab measures.
        EndpointSliceController(world),
        ReplicaSetController(world),
        DeploymentController(world),
        NamespaceFurnisher(world),
        Bootstrap(world),
        EndpointsController(world),
        MirroringController(world),
        garbage := GarbageCollector(world, resources),
        namespaces := NamespaceController(world, resources),
        NodeController(world),
        TaintEvictionController(world),
        PodCollector(world),
        DisruptionController(world),
        StatefulSetController(world),
        DaemonSetController(world),
        JobController(world),
        JobOrphanController(world),
        AutoscalerController(world),
    ]
    CustomKinds(world.caches, (garbage, namespaces))
    async with Nursery() as nursery:
        nursery.start(world.caches.run(), name="controllers' caches")
        nursery.start(expire_events(api), name="event expiry")
        for controller in controllers:
            nursery.start(controller.run(), name=controller.component)
