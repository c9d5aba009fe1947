"""Independent reckonings: what is right, by other means than the package has."""
