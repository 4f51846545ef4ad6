"""A real Linux node's kernel as a witness: netfilter rules of every backend, tracked connections, pods' sockets.

``LinuxKernel`` is ``observers.kernel.Tables`` of the network namespace it runs in; ``NamespacedSockets`` reads a pod's
sockets in the pod's own. What is not there, fails or is not understood is unreadable, by name.
"""

from tidegate.observers.linux.kernel import LinuxKernel
from tidegate.observers.linux.kubelet import KubeletProcess
from tidegate.observers.linux.sockets import NamespacedSockets

__all__ = ["KubeletProcess", "LinuxKernel", "NamespacedSockets"]
