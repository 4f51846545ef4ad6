"""The lab's kubelet, one per node: runs pods as processes and ends them with the real kubelet's arithmetic."""
