"""How a model's tensors are wired: populations, roles, sources, names."""
