"""What numba compiles: how loops are compiled and run on threads, and single instructions."""
