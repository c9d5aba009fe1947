"""What the benchmarks of spiking networks share: the options of a run, and its images."""

from __future__ import annotations

import argparse
from pathlib import Path

from qrsolve.lab.data import DataSet, load_mnist

N_HELD_OUT = 10_000


def add_run_options(parser: argparse.ArgumentParser, learning_rate: float) -> None:
    """Add the options that say on what, how long and how often to train."""
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--learning-rate", type=float, default=learning_rate)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--subset", type=int, default=0, help="train on the first so many images only")
    parser.add_argument("--held-out", action="store_true", help=f"test on the last {N_HELD_OUT:,} training images")
    parser.add_argument("--threads", type=int, default=1)


def asked(options: argparse.Namespace) -> dict[str, object]:
    """Return what was asked for, to be printed beside the results."""
    names = ("held_out", "epochs", "batch", "learning_rate", "seeds", "threads")
    return {name: getattr(options, name) for name in names}


def images(options: argparse.Namespace) -> DataSet:
    """Return the images that the options ask for."""
    data = load_mnist(options.data_dir)
    if options.held_out:
        data = data.held_out(N_HELD_OUT)
    if options.subset:
        data = data.first(options.subset, len(data.x_test))
    return data


def percent(share: float) -> float:
    """Return a share in percent with two digits."""
    return round(100 * share, 2)
