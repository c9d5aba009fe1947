"""The networks of `qrsolve train`: one kind per file."""

from qrsolve.training.networks.base import Network
from qrsolve.training.networks.mlp import Mlp
from qrsolve.training.networks.resnet import ResNet
from qrsolve.training.networks.rsnn import Rsnn
from qrsolve.training.networks.snn import Snn

NETWORKS: tuple[type[Network], ...] = (Mlp, Snn, Rsnn, ResNet)
"""All networks, in the order in which the command line lists them."""

__all__ = ["NETWORKS", "Mlp", "Network", "ResNet", "Rsnn", "Snn"]
