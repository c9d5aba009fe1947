"""A chip for a network: its problems, their solutions, and what these are worth."""
