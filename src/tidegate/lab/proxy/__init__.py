"""Each node's kube-proxy: watches Services and EndpointSlices, syncs the node's kernel with the real one's timing."""
