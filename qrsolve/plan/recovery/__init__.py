"""Values and options that given weights are made of, found without a solver."""
