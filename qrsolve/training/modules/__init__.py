"""From torch modules to a network: which tensors are afferent matrices, and how they are wired."""
