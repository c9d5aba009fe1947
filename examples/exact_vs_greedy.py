"""One synapse at a time is wrong: the second synapse for 8 from bases 10 and 3 saves nothing, the third does."""

import torch

from qrsolve import Alphabet, ChoiceProblem, Group, certify
from qrsolve.project import solve_choice
from qrsolve.solvers import Solver, named_solver

# Up to three parallel synapses of 10 or 3: each value with the fewest synapses that reach it.
alphabet = Alphabet.of([0, 3, 10, 6, 13, 20, 9, 16, 23, 30], use=[0, 1, 1, 2, 2, 2, 3, 3, 3, 3])
targets = torch.tensor([[8.0, 8.0, 8.0], [8.0, 6.5, 1.0]])
problem = ChoiceProblem(targets, alphabet, (Group("row", 6, limit="fan_in"),))


def show(title: str, solver: Solver | None) -> float:
    """Solve, certify, print; return the objective."""
    solution = solve_choice(problem, solver)
    proof = certify(problem, solution)
    print(
        f"{title}: objective {proof.objective:g}, gap {proof.gap:g}, {proof.certified_rows} of {proof.rows} rows proved"
    )
    print(f"  by {solution.solver}: {solution.values(problem).tolist()}")
    return proof.objective


exact = show("exact", None)
greedy = show("greedy", named_solver("marginal_greedy"))
print(f"greedy is worse by {greedy - exact:g}")
