"""Which values one connection can take: one class per ``weights.kind``, one file each."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import Field

from qrsolve.spec.weights.axon_types import AxonTypeWeights
from qrsolve.spec.weights.base import Composition, CountedKind, Scope, SignedKind, WeightKind
from qrsolve.spec.weights.base_mask import BaseMaskWeights
from qrsolve.spec.weights.codebook import CodebookWeights
from qrsolve.spec.weights.grid import GridWeights, Scale
from qrsolve.spec.weights.real import RealWeights
from qrsolve.spec.weights.synapse_types import SynapseType, SynapseTypeWeights

Weights = Annotated[
    RealWeights | GridWeights | CodebookWeights | SynapseTypeWeights | BaseMaskWeights | AxonTypeWeights,
    Field(discriminator="kind"),
]
WEIGHT_KINDS: tuple[type[WeightKind], ...] = get_args(get_args(Weights)[0])

__all__ = [
    "WEIGHT_KINDS",
    "AxonTypeWeights",
    "BaseMaskWeights",
    "CodebookWeights",
    "Composition",
    "CountedKind",
    "GridWeights",
    "RealWeights",
    "Scale",
    "Scope",
    "SignedKind",
    "SynapseType",
    "SynapseTypeWeights",
    "WeightKind",
    "Weights",
]
