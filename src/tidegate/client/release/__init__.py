"""Releases carried out: objects -> scene -> decision -> tested writes. The engine of the command line and the
operator."""
