"""`--model resnet`: ResNet-20."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from qrsolve.lab.data import DataSet
from qrsolve.lab.networks.base import Network

CHANNELS = (16, 32, 64)
N_BLOCKS = 3
"""Blocks per stage: 6 x 3 + 2 = 20 layers with weights."""


class ResNet(Network):
    """ResNet-20 for CIFAR-10 (He, Zhang, Ren, Sun, CVPR 2016, section 4.2)."""

    name: ClassVar[str] = "resnet"

    def build(self, data: DataSet) -> ResidualClassifier:
        """Return the network."""
        return ResidualClassifier(data.image, data.n_classes)


class ResidualClassifier(nn.Module):
    """Three stages of residual blocks; the fan-in of a filter is its channels times its nine places.

    Shortcuts have no weights: they skip every other pixel and pad channels with zeros (option A).

    Parameters
    ----------
    image : tuple of int
        Channels, height, width.
    n_classes : int
        Outputs.
    """

    def __init__(self, image: tuple[int, int, int], n_classes: int) -> None:
        super().__init__()
        self.image = image
        self.conv = nn.Conv2d(image[0], CHANNELS[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(CHANNELS[0])
        blocks, n_channels = [], CHANNELS[0]
        for wanted in CHANNELS:
            for _ in range(N_BLOCKS):
                blocks.append(ResidualBlock(n_channels, wanted))
                n_channels = wanted
        self.blocks = nn.Sequential(*blocks)
        self.output = nn.Linear(n_channels, n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return one value per class, shape (batch, n_classes)."""
        x = functional.relu(self.norm(self.conv(x.reshape(-1, *self.image))))
        features: Tensor = self.output(self.blocks(x).mean(dim=(2, 3)))
        return features


class ResidualBlock(nn.Module):
    """Two convolutions with batch norms, beside a shortcut."""

    def __init__(self, n_inputs: int, n_outputs: int) -> None:
        super().__init__()
        self.stride, self.n_new = (1 if n_inputs == n_outputs else 2), n_outputs - n_inputs
        self.conv1 = nn.Conv2d(n_inputs, n_outputs, 3, stride=self.stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_outputs)
        self.conv2 = nn.Conv2d(n_outputs, n_outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, with half the height and width where it has more channels."""
        inner: Tensor = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x)))))
        if self.n_new:
            before = self.n_new // 2
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.n_new - before))
        return torch.relu(inner + x)
