"""Statistics of what reaches the weights of a network, and projections that know them."""
