"""Free values without capacities: hundreds of starts at once, on running sums of the sorted weights."""

from __future__ import annotations

from qrsolve.problem.choice import ValuesProblem
from qrsolve.problem.structure import ValuesStructure
from qrsolve.solvers.values.alternation import alternate
from qrsolve.solvers.values.base import Choose, LearnedValues, ValuesMethod, binding_limit
from qrsolve.solvers.values.sorted_runs import best_of_many


class SortedAlternation(ValuesMethod):
    """Alternate the nearest option with least-squares values, from hundreds of starts: a local optimum, a good one.

    Without capacities every weight takes the nearest option, so the weights of an option are a run of the sorted
    weights. Running sums give its moments in two look-ups, whatever the number of weights, for all starts together.
    """

    name = "sorted_alternation"
    guarantee = "best of hundreds of starts, with a bound"

    def refusal(self, problem: ValuesStructure) -> str:
        """Refuse capacities that can bind, values on a grid and powers of two."""
        if problem.family.power_of_two or problem.family.value_bits is not None:
            return "the values lie on a grid"
        return binding_limit(problem)

    def solve(self, problem: ValuesProblem, choose: Choose, max_rounds: int, tolerance: float) -> LearnedValues:
        """Follow all starts, disturb the best ends and follow them again; finish the best with the exact choice."""
        return alternate(problem, choose, best_of_many(problem), max_rounds, tolerance)
