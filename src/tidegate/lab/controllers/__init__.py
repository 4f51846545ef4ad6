"""The controllers of a lab cluster: each is a pure question (what to write next) in a thin shell."""
