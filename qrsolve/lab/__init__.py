"""`qrsolve train` and `qrsolve sweep`: data, networks, trainings."""
