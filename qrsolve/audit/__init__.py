"""Count without a solver: what weights use of a chip's limits, and what is wrong with them."""
