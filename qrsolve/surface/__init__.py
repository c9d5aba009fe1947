"""How the package shows itself: public names, one-line errors, reprs and tables."""
