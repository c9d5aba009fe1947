"""Files of statistics: written whole, read back, and refused in one line where they are not what they should be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qrsolve
from qrsolve import ModelError
from qrsolve.files.formats.npz import archive_of
from qrsolve.files.output_file import OutputError
from qrsolve.files.statistics_file import read_statistics, write_statistics


def moment(n: int, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(50, n))
    return x.T @ x / 50


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"a": torch.randn(6, 8, generator=generator), "b": torch.randn(3, 6, generator=generator)}


def saved(path: Path, **arrays: np.ndarray) -> Path:
    path.write_bytes(archive_of({f"{name}/second_moment": array for name, array in arrays.items()}))
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    second = {"a": torch.from_numpy(moment(4))[None], "b": torch.from_numpy(np.stack([moment(3), moment(3, 1)]))}
    means = {name: torch.zeros(tensor.shape[:2], dtype=torch.float64) for name, tensor in second.items()}
    path = tmp_path / "s.npz"
    write_statistics(path, second, means)
    found = read_statistics(path)
    assert set(found) == {"a", "b"}
    for name, tensor in second.items():
        assert torch.allclose(found[name], tensor)
    with np.load(path) as archive:
        assert archive["a/second_moment"].shape == (4, 4)
        assert archive["a/mean"].shape == (4,)
        assert archive["b/second_moment"].shape == (2, 3, 3)
    with pytest.raises(OutputError, match="exists"):
        write_statistics(path, second, means)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.ones((2, 3)), r"'a/second_moment' has shape \(2, 3\) and type float64; needed floats"),
        (np.ones((2, 2), dtype=np.int64), r"has shape \(2, 2\) and type int64; needed floats"),
        (np.full((2, 2), np.nan), "'a/second_moment' has NaN or inf"),
        (np.array([[1.0, 0.5], [0.0, 1.0]]), "'a/second_moment' is not symmetric"),
        (np.array([[-1.0, 0.0], [0.0, 1.0]]), "'a/second_moment' has a negative mean square"),
    ],
)
def test_moments_that_are_none_are_refused(array: np.ndarray, said: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=said):
        read_statistics(saved(tmp_path / "s.npz", a=array))


def test_other_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "weights.npz", a=np.ones((2, 2)))
    with pytest.raises(ModelError, match="no POPULATION/second_moment; needed statistics of qrsolve calibrate"):
        read_statistics(tmp_path / "weights.npz")
    whole = saved(tmp_path / "s.npz", a=moment(4)).read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"half.npz"):
        read_statistics(tmp_path / "half.npz")
    with pytest.raises(ModelError, match="no such file"):
        read_statistics(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"a": moment(8)}, "statistics: none of 'b'"),
        ({"a": moment(8), "c": moment(6)}, "statistics: none of 'b'; there is a, c; they are of another network"),
        ({"a": moment(7), "b": moment(6)}, "statistics: those of 'a' are 1 x 7 x 7; it has 8 sources"),
    ],
)
def test_statistics_of_another_network_are_named(arrays: Any, said: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "s.npz", **arrays)
    for call in (qrsolve.project, qrsolve.compare):
        with pytest.raises(ModelError, match=said):
            call("dynap_se", weights(), statistics=path)


def test_projections_by_statistics_lose_less_of_the_outputs(tmp_path: Path) -> None:
    a, b = moment(8), moment(6, 1)
    path = saved(tmp_path / "s.npz", a=a, b=b)
    plain, ours = qrsolve.project("dynap_se", weights()), qrsolve.project("dynap_se", weights(), statistics=path)
    assert ours.report().is_compliant
    for name, second in (("a", a), ("b", b)):
        losses = []
        for projections in (ours, plain):
            error = (projections.tensors[name] - weights()[name]).double().numpy()
            losses.append(float(np.einsum("ri,ij,rj->", error, second, error)))
        assert losses[0] < losses[1]
        # The objective is the loss under the damped moment, computed anew.
        damped = second + 1e-3 * np.trace(second) / len(second) * np.eye(len(second))
        error = (ours.tensors[name] - weights()[name]).double().numpy()
        assert ours[name].certificate.objective == pytest.approx(
            np.einsum("ri,ij,rj->", error, damped, error), rel=1e-5
        )
        assert ours[name].choice_certificate.bound <= ours[name].choice_certificate.objective


def test_compare_lists_the_ways_and_their_losses(tmp_path: Path) -> None:
    path = saved(tmp_path / "s.npz", a=moment(8), b=moment(6, 1))
    for chip, propagates in (("dynap_se", True), ("loihi_2", True)):
        layer = qrsolve.compare(chip, weights(), statistics=path)["a"]
        found = {result.solver: result for result in layer.results}
        assert list(found) == [
            "plain",
            "diagonal",
            "majorised",
            "error_propagation",
            "prune_then_round",
            "local_search",
        ]
        assert bool(found["error_propagation"].objective) == propagates
        losses = [result.objective for result in found.values() if result.objective is not None]
        assert found["local_search"].objective == min(losses)
        assert found["majorised"].objective <= found["diagonal"].objective  # type: ignore[operator]


def test_statistics_stand_alone(tmp_path: Path) -> None:
    path = saved(tmp_path / "s.npz", a=moment(8), b=moment(6))
    with pytest.raises(qrsolve.ArgumentError, match="'calibration' beside 'statistics'"):
        qrsolve.project("dynap_se", weights(), statistics=path, calibration=[torch.ones(1, 8)])
