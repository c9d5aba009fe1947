"""What the outputs of a layer lose, minimised: quadratic problems, their starts, moves, values and evidence."""

from qrsolve.solvers.quadratic.bounding import find_evidence
from qrsolve.solvers.quadratic.learning import Start, solve_quadratic_values
from qrsolve.solvers.quadratic.solving import solve_quadratic, solve_real_quadratic

__all__ = ["Start", "find_evidence", "solve_quadratic", "solve_quadratic_values", "solve_real_quadratic"]
