"""CustomResourceDefinitions: kinds that come into the registry while the server runs, and go again."""
