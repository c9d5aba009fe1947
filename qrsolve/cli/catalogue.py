"""Names that options of the command line take, with one line on each.

They stand here a second time, beside the lists of classes, so that help and completion need no torch; a test compares.
"""

METHODS = {
    "straight_through": "Straight-through: gradients at the deployable weights move the latent ones.",
    "q_rewiring": (
        "Quantized rewiring: real-valued counts move by gradient, and are made deployable before every forward pass."
    ),
    "deep_r": "Deep rewiring: connections that reach zero go dormant, and others wake up in their place.",
    "soft_deep_r": "Soft deep rewiring: dormant connections wander below zero until they come back by themselves.",
    "grad_r": "Gradient rewiring: the gradient reaches pruned connections too, so it decides what grows back.",
    "cat": "Clusterization-aware training: the few values that weights share are parameters of their own.",
}
"""Training methods."""
NETWORKS = {
    "mlp": "One hidden layer of rectified units.",
    "snn": "Two layers of leaky integrate-and-fire neurons, from snnTorch.",
    "rsnn": "A recurrent network of adaptive spiking neurons that reads an image over time.",
    "resnet": "ResNet-20.",
}
"""Networks of `qrsolve train`."""
DATA_SETS = {
    "digits": "1,797 images of 8 x 8 pixels that come with scikit-learn.",
    "mnist": "70,000 images of 28 x 28 pixels, from files in --data-dir.",
    "cifar10": "60,000 colour images of 32 x 32 pixels, from files in --data-dir.",
}
"""Data sets of `qrsolve train`."""
MODES = {
    "always": "Every forward pass of the training is deployable.",
    "at_end": "The limits start loose and tighten; the result is deployable, and usually more accurate.",
}
"""When weights are deployable."""
SOLVERS = {
    "nearest": "No capacity: every entry takes its nearest value.",
    "prices": "One capacity per row, any alphabet: price the synapses, then close what the price leaves open.",
    "top_gains": "Nested capacities that count connections: quantise every entry, keep the largest gains.",
    "greedy": "Nested capacities and convex costs: take the largest marginal gains, one synapse at a time.",
    "signs": "One sign per source and nothing else: each column takes its cheaper sign.",
    "types": "One type per source and nothing else: each column takes its cheapest type.",
    "nested_prices": "Nested capacities, any alphabet: tables inside blocks and rows, and one price over all of them.",
    "min_cost_flow": "Rows and columns together, convex costs: min-cost flow, proved by its potentials.",
    "cp_sat": "Any capacities together, on small problems: CP-SAT with costs as integers.",
    "milp": ("Any capacities together, on small problems: HiGHS through cvxpy, a second exact opinion beside CP-SAT."),
    "sign_prices": "One sign per source and capacities together, on large problems.",
    "type_prices": "One type per source and capacities together, on large problems.",
    "lagrangian": (
        "Any capacities together, at any size: prices for all of them, and a feasible choice that follows the prices."
    ),
}
"""Solvers, in order of preference: ``auto`` takes the first that does not refuse."""
HEURISTICS = {
    "round_then_prune": (
        "Round every weight to its nearest value, then set the smallest abs(w) to zero until all limits fit."
    ),
    "prune_then_round": (
        "Keep the capacity largest abs(w) at one synapse each, then round each as the synapses left over allow."
    ),
    "marginal_greedy": (
        "Give one synapse at a time to the entry whose error it lowers most, until the row is full or none saves "
        "anything."
    ),
    "greedy_decomposition": (
        "Write each weight as so many of the largest base, so many of the next, then remove random connections."
    ),
}
"""Heuristics, for comparison; taken only by name."""
EXIT_CODES = {
    "0": "Done, and no decided rule is violated (with --strict: none is undecided either).",
    "1": "Violations, or no weights fit the chip at all.",
    "2": "Bad input, or an output that cannot be written: one line on stderr.",
    "130": "Interrupted by Ctrl-C.",
}
"""Exit codes of every command."""
