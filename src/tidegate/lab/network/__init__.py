"""The lab's network `kernel`: namespaces, veth and bridges, real netfilter. Linux, root."""
