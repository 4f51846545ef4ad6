"""The nodes' kernels: L4 forwarding by service tables, connection tracking, one redirect.

One process holds the kernels of every node of a lab and survives the proxies that program them, as a real
kernel survives kube-proxy. A connection is balanced when it opens and stays where it was put.
"""
