"""Project one matrix for DYNAP-SE and read its certificate."""

import torch

import qrsolve

torch.manual_seed(0)
weights = {"fc1.weight": 0.1 * torch.randn(64, 256)}

plan = qrsolve.compile_plan(qrsolve.load_spec("dynap_se"), {"fc1.weight": (64, 256)})
projection = qrsolve.project(plan, weights)["fc1.weight"]
proof = projection.certificate

for name, values in projection.named_values().items():
    print(f"{name:9} {values[0]:+.4f}")
print(f"nonzero weights of neuron 0: {projection.weights['fc1.weight'][0].count_nonzero()} of 256")
print(f"violations: {len(proof.violations)}")
print(f"squared error {proof.objective:.3f}; no deployable weights are below {proof.bound:.3f} ({proof.bound_source})")
print(f"status: {projection.status.value}, by {projection.solution.solver}")

# The four magnitudes are learned; the bound holds for every choice of them. For these four, the choice is proved:
choice = projection.choice_certificate
print(f"for these values: gap {choice.gap:.1e}, {choice.certified_rows} of {choice.rows} neurons proved optimal")

for sentence in plan.not_enforced:
    print("not enforced:", sentence)
