"""The figures that README and docs claim, each with the command that makes it: ``python -m bench [NAME...]``."""
