"""The science: the MARSTFN network, its baselines, its metrics and the simulator that trains it."""
