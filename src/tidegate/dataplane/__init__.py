"""One file per data plane: raw dump in, facts out; what is not understood is unreadable."""
