"""What runs containers: OS processes (``real``) or modelled processes under virtual time (``virtual``)."""
