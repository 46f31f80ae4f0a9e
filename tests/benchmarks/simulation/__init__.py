"""A fleet, simulated: the real core and wrappers on noops, in time that is not waited for."""
