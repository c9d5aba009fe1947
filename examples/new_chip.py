"""A chip of your own: its rules are one YAML file, `my_chip.yaml` beside this script."""

from pathlib import Path

import torch

import qrsolve

spec = qrsolve.load_spec(Path(__file__).with_name("my_chip.yaml"))

# What do the rules mean for a layer of 32 neurons with 100 sources? Nothing is solved yet.
explanation = qrsolve.explain(spec, {"fc": (32, 100)})
layer = explanation.layers["fc"]
print(f"{spec.title}: {layer.structure}")
print(f"solver: {layer.solver} ({layer.guarantee})")
for name, reason in layer.refusals.items():
    print(f"  {name}: {reason or 'accepts'}")

plan = qrsolve.compile_plan(spec, {"fc": (32, 100)})
for sentence in plan.not_enforced:
    print("not enforced:", sentence)
for sentence in plan.remarks:
    print("taken as:", sentence)

torch.manual_seed(0)
projection = qrsolve.project(plan, {"fc": torch.randn(32, 100)})["fc"]
print("values:", {name: round(values[0], 3) for name, values in projection.named_values().items()})
print(f"violations: {len(projection.certificate.violations)}, status: {projection.status.value}")
