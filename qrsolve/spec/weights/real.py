"""Weights of any real value."""

from __future__ import annotations

from typing import ClassVar, Literal

from qrsolve.spec.weights.base import SignedKind


class RealWeights(SignedKind):
    """Any real value."""

    kind: Literal["real"] = "real"
    coding: ClassVar[Literal["table", "integers", "values"]] = "values"
