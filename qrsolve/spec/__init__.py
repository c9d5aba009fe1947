"""The spec language: a chip's YAML file, validated, with the line of every mistake."""

from qrsolve.spec.demand import Demand
from qrsolve.spec.facts import Fact
from qrsolve.spec.hardware import HardwareSpec, Hierarchy
from qrsolve.spec.layer_shape import LayerShape
from qrsolve.spec.limit_kind import ROLES, LimitKind, Role
from qrsolve.spec.limits import (
    LIMIT_KINDS,
    Axons,
    FanIn,
    FanOut,
    Limit,
    NeuronMemory,
    Neurons,
    NOfM,
    Reach,
    Shape,
    Synapses,
    Tags,
)
from qrsolve.spec.load import bundled_specs, load_spec, parse_spec, spec_hash
from qrsolve.spec.override import Setting, locate, parse_setting, with_values
from qrsolve.spec.schema import json_schema, network_schema
from qrsolve.spec.synapse_memory import SynapseMemory, is_rounded
from qrsolve.spec.template import template
from qrsolve.spec.weights import (
    WEIGHT_KINDS,
    AxonTypeWeights,
    BaseMaskWeights,
    CodebookWeights,
    Composition,
    GridWeights,
    RealWeights,
    Scale,
    SynapseType,
    SynapseTypeWeights,
    WeightKind,
    Weights,
)

__all__ = [
    "LIMIT_KINDS",
    "ROLES",
    "WEIGHT_KINDS",
    "AxonTypeWeights",
    "Axons",
    "BaseMaskWeights",
    "CodebookWeights",
    "Composition",
    "Demand",
    "Fact",
    "FanIn",
    "FanOut",
    "GridWeights",
    "HardwareSpec",
    "Hierarchy",
    "LayerShape",
    "Limit",
    "LimitKind",
    "NOfM",
    "NeuronMemory",
    "Neurons",
    "Reach",
    "RealWeights",
    "Role",
    "Scale",
    "Setting",
    "Shape",
    "SynapseMemory",
    "SynapseType",
    "SynapseTypeWeights",
    "Synapses",
    "Tags",
    "WeightKind",
    "Weights",
    "bundled_specs",
    "is_rounded",
    "json_schema",
    "load_spec",
    "locate",
    "network_schema",
    "parse_setting",
    "parse_spec",
    "spec_hash",
    "template",
    "with_values",
]
