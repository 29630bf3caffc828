"""Where a simulation runs: Flower's Ray backend, or this process."""
