"""Nobody is believed: violations, objective and bound of a claim, recomputed from the raw weights."""
