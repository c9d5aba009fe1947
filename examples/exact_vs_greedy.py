"""One synapse at a time is wrong: the second synapse for 8 from bases 10 and 3 saves nothing, the third does."""

import torch

from qrsolve import Alphabet, ChoiceProblem, Group, certify, solve

# Up to three parallel synapses of 10 or 3: each value with the fewest synapses that reach it.
alphabet = Alphabet.sums([3, 10], max_synapses=3)
targets = torch.tensor([[8.0, 8.0, 8.0], [8.0, 6.5, 1.0]])
problem = ChoiceProblem(targets, alphabet, (Group("row", 6, limit="fan_in"),))


def show(title: str, solver: str | None) -> float:
    """Solve, certify, print; return the objective."""
    solution = solve(problem, solver)
    proof = certify(problem, solution)
    print(
        f"{title}: objective {proof.objective:g}, gap {proof.gap:g}, {proof.certified_rows} of {proof.rows} rows proved"
    )
    print(f"  by {solution.solver}: {solution.values(problem).tolist()}")
    return proof.objective


exact = show("exact", None)
greedy = show("greedy", "marginal_greedy")
print(f"greedy is worse by {greedy - exact:g}")
