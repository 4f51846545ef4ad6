"""The lab's DNS: CoreDNS's ``kubernetes`` and ``cache`` plugins as kubeadm sets them up, one server per node."""
