"""The lab's API server: what kubectl, client-go and the official clients take for a real one."""
