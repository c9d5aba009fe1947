"""The networks of `qrsolve train`: one kind per file."""

from qrsolve.lab.networks.base import Network
from qrsolve.lab.networks.mlp import Mlp
from qrsolve.lab.networks.resnet import ResNet
from qrsolve.lab.networks.rsnn import Rsnn
from qrsolve.lab.networks.snn import Snn

NETWORKS: tuple[type[Network], ...] = (Mlp, Snn, Rsnn, ResNet)
"""All networks, in the order in which the command line lists them."""

__all__ = ["NETWORKS", "Mlp", "Network", "ResNet", "Rsnn", "Snn"]
