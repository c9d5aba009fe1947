"""Weights of any real value."""

from __future__ import annotations

from typing import Literal

from qrsolve.spec.weights.base import SignedKind


class RealWeights(SignedKind):
    """Any real value."""

    kind: Literal["real"] = "real"
