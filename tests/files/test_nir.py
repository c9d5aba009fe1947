"""NIR graphs: read, projected and written by every command, and nothing else of them changes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qrsolve
from qrsolve import ModelError, ShapeError
from qrsolve.cli.app import main
from qrsolve.files.model_file import read_model, write_weights

nir = pytest.importorskip("nir", reason="needs nir: pip install 'qrsolve[dev]'")
h5py = pytest.importorskip("h5py", reason="needs h5py: pip install 'qrsolve[nir]'")

SHARED = Path(__file__).parents[3] / "shared" / "data" / "nir"
CHIPS = ("dynap_se", "xylo_audio_2", "loihi_2")


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return (0.3 * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def lif(n: int, **stated: Any) -> Any:
    one = np.ones(n, dtype=np.float32)
    return nir.LIF(**({"tau": one, "r": one, "v_leak": 0 * one, "v_threshold": one, "v_reset": 0 * one} | stated))


def recurrent_graph() -> Any:
    """40 neurons that 12 inputs and 40 of their own drive, read by 7."""
    nodes = {
        "input": nir.Input(np.array([12])),
        "w_in": nir.Affine(random(40, 12), random(40)),
        "hidden": lif(40),
        "w_rec": nir.Linear(random(40, 40, seed=1)),
        "w_out": nir.Linear(random(7, 40, seed=2)),
        "readout": nir.LI(*(np.ones(7, dtype=np.float32) for _ in range(3))),
        "output": nir.Output(np.array([7])),
    }
    edges = [("input", "w_in"), ("w_in", "hidden"), ("hidden", "w_rec"), ("w_rec", "hidden")]
    edges += [("hidden", "w_out"), ("w_out", "readout"), ("readout", "output")]
    return nir.NIRGraph(nodes, edges)


def convolutional_graph() -> Any:
    nodes = {
        "input": nir.Input(np.array([2, 8, 8])),
        "conv": nir.Conv2d((8, 8), random(4, 2, 3, 3), 1, 1, 1, 1, random(4)),
        "if": nir.IF(*(np.ones((4, 8, 8), dtype=np.float32) for _ in range(2))),
        "pool": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "flat": nir.Flatten({"input": np.array([4, 4, 4])}, 0, -1),
        "fc": nir.Linear(random(5, 64, seed=1)),
        "output": nir.Output(np.array([5])),
    }
    names = list(nodes)
    return nir.NIRGraph(nodes, list(pairwise(names)))


def nested_graph() -> Any:
    inner = nir.NIRGraph(
        {
            "input": nir.Input(np.array([6])),
            "w": nir.Linear(random(9, 6)),
            "lif": lif(9),
            "output": nir.Output(np.array([9])),
        },
        [("input", "w"), ("w", "lif"), ("lif", "output")],
    )
    nodes = {
        "input": nir.Input(np.array([6])),
        "block": inner,
        "late": nir.Delay(np.ones(9, dtype=np.float32)),
        "w": nir.Linear(random(4, 9, seed=1)),
        "lif": lif(4),
        "output": nir.Output(np.array([4])),
    }
    names = list(nodes)
    return nir.NIRGraph(nodes, list(pairwise(names)))


GRAPHS: dict[str, Callable[[], Any]] = {
    "recurrent": recurrent_graph,
    "convolutional": convolutional_graph,
    "nested": nested_graph,
}


def written(graph: Any, path: Path) -> Path:
    nir.write(path, graph)
    return path


def edited(path: Path, edit: Callable[[Any], object]) -> Path:
    with h5py.File(path, "r+") as file:
        edit(file)
    return path


def contents(path: Path) -> dict[str, Any]:
    """Return every dataset of a file with its type and bytes."""
    found: dict[str, Any] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            value = item[()]
            found[name] = (str(item.dtype), value.tolist() if isinstance(value, np.ndarray) else value)

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def facts(path: Path) -> dict[str, dict[str, Any]]:
    network = read_model(path).network
    assert network is not None
    return {layer.tensor: layer.model_dump(exclude_none=True) for layer in network.layers}


def test_edges_tell_populations_roles_and_feeds(tmp_path: Path) -> None:
    found = facts(written(recurrent_graph(), tmp_path / "g.nir"))
    assert {name: own["population"] for name, own in found.items()} == {
        "w_in.weight": "hidden",
        "w_rec.weight": "hidden",
        "w_out.weight": "readout",
    }
    assert {name: own["role"] for name, own in found.items()} == {
        "w_in.weight": "input",
        "w_rec.weight": "recurrent",
        "w_out.weight": "output",
    }
    assert "fed_by" not in found["w_in.weight"]
    assert found["w_rec.weight"]["fed_by"] == ("hidden",)
    assert found["w_out.weight"]["fed_by"] == ("hidden",)


def test_convolutions_have_their_maps(tmp_path: Path) -> None:
    found = facts(written(convolutional_graph(), tmp_path / "g.nir"))
    assert found["conv.weight"]["map"] == (2, 8, 8)
    assert found["conv.weight"]["padding"] == (1, 1)
    assert found["fc.weight"]["fed_by"] == ("if",)
    report = qrsolve.check("speck", tmp_path / "g.nir")
    assert "neuron_memory" not in {rule.rule for rule in report.not_decided}


def test_subgraphs_are_joined(tmp_path: Path) -> None:
    found = facts(written(nested_graph(), tmp_path / "g.nir"))
    assert found["block.w.weight"]["role"] == "input"
    assert found["w.weight"]["fed_by"] == ("block.lif",)
    assert found["w.weight"]["role"] == "output"


def test_what_two_populations_send_to_one_neuron_is_one_budget(tmp_path: Path) -> None:
    path = written(recurrent_graph(), tmp_path / "g.nir")
    chip = qrsolve.HardwareSpec.model_validate(
        {
            "schema": 1,
            "name": "c",
            "title": "T",
            "weights": {"kind": "grid", "bits": 4},
            "limits": [{"kind": "fan_in", "max": 20}],
        }
    )
    (row, *_) = qrsolve.check(chip, path).layers["w_in.weight+w_rec.weight"].rows
    assert (row.kind, row.value) == ("fan_in", 52)
    weights = qrsolve.project(chip, path).tensors
    both = torch.cat([weights["w_in.weight"], weights["w_rec.weight"]], dim=1)
    assert int((both != 0).sum(dim=1).max()) == 20


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("kind", ["recurrent", "nested"])
def test_projected_graphs_are_the_same_graphs_with_deployable_weights(kind: str, chip: str, tmp_path: Path) -> None:
    path, out = written(GRAPHS[kind](), tmp_path / "g.nir"), tmp_path / "out.nir"
    assert main(["project", chip, str(path), "-o", str(out)]) == 0
    assert main(["check", chip, str(out)]) == 0
    before, after = contents(path), contents(out)
    own = {name for name in after if name.startswith("node/metadata/qrsolve/")}
    assert after.keys() - own == before.keys()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if name.endswith("/weight")}
    assert all(before[name][0] == after[name][0] for name in before)
    projected = qrsolve.project(chip, path).tensors
    graph = nir.read(out)
    for name, weights in projected.items():
        node: Any = graph
        for part in name.removesuffix(".weight").split("."):
            node = node.nodes[part]
        assert np.array_equal(node.weight, weights.numpy())
    said = json.loads(graph.metadata["qrsolve"]["json"])
    assert said["spec"] == chip
    assert set(said["layers"]) == set(qrsolve.project(chip, path))


def test_codes_go_into_the_metadata(tmp_path: Path) -> None:
    path, out = written(recurrent_graph(), tmp_path / "g.nir"), tmp_path / "out.nir"
    assert main(["project", "loihi_2", str(path), "-o", str(out)]) == 0
    graph = nir.read(out)
    codes = graph.metadata["qrsolve"]["codes"]["w_rec.weight"]
    weights = (codes["codes"] * codes["scale"][codes.get("scope", 0)]).astype(np.float32)
    assert np.array_equal(weights, graph.nodes["w_rec"].weight)


@pytest.mark.parametrize("kind", GRAPHS)
def test_a_graph_that_is_written_untouched_has_the_same_contents(kind: str, tmp_path: Path) -> None:
    path = written(GRAPHS[kind](), tmp_path / "g.nir")
    model = read_model(path)
    write_weights(tmp_path / "out.nir", model.weights(), source=model)
    assert contents(path) == contents(tmp_path / "out.nir")


def test_projecting_again_replaces_what_was_recorded(tmp_path: Path) -> None:
    path, out = written(recurrent_graph(), tmp_path / "g.nir"), tmp_path / "out.nir"
    assert main(["project", "dynap_se", str(path), "-o", str(out)]) == 0
    assert main(["project", "loihi_2", str(out), "-o", str(out), "--force"]) == 0
    graph = nir.read(out)
    assert json.loads(graph.metadata["qrsolve"]["json"])["spec"] == "loihi_2"
    assert "table" not in graph.metadata["qrsolve"]["codes"]["w_rec.weight"]


def test_metadata_of_others_stays(tmp_path: Path) -> None:
    graph = recurrent_graph()
    graph.metadata = {"author": "somebody", "nested": {"x": np.arange(3)}}
    path, out = written(graph, tmp_path / "g.nir"), tmp_path / "out.nir"
    assert main(["project", "dynap_se", str(path), "-o", str(out)]) == 0
    metadata = nir.read(out).metadata
    assert metadata["author"] == "somebody"
    assert metadata["nested"]["x"].tolist() == [0, 1, 2]


def test_an_unknown_node_is_kept_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def add(file: Any) -> None:
        node = file["node/nodes"].create_group("strange")
        node["type"] = "Dendrite"
        node["weight"] = random(3, 3)
        edges = file["node/edges"][()]
        del file["node/edges"]
        file["node/edges"] = np.concatenate([edges, np.array([[b"hidden", b"strange"]], dtype=object)])

    path, out = edited(written(recurrent_graph(), tmp_path / "g.nir"), add), tmp_path / "out.nir"
    assert main(["project", "dynap_se", str(path), "-o", str(out)]) == 0
    assert "'strange' (Dendrite)" in capsys.readouterr().out
    assert contents(path)["node/nodes/strange/weight"] == contents(out)["node/nodes/strange/weight"]


def test_other_arguments_choose_among_the_matrices(tmp_path: Path) -> None:
    path = written(recurrent_graph(), tmp_path / "g.nir")
    assert list(qrsolve.check("loihi_2", path, select=["w_rec.weight"]).layers) == ["w_rec.weight"]
    assert list(qrsolve.check("loihi_2", path, exclude=["w_in.weight"]).layers) == ["w_out.weight", "w_rec.weight"]


def test_a_group_of_the_user_joins_all_that_share_with_its_matrices(tmp_path: Path) -> None:
    """What edges say stays true: w_in drives the neurons of w_rec."""
    graph = recurrent_graph()
    graph.nodes["w_out"] = nir.Linear(random(40, 40, seed=2))
    graph.nodes["readout"] = nir.LI(*(np.ones(40, dtype=np.float32) for _ in range(3)))
    graph.nodes["output"] = nir.Output(np.array([40]))
    path = written(graph, tmp_path / "g.nir")
    (name,) = qrsolve.check("dynap_se", path, groups=[("w_rec.weight", "w_out.weight")]).layers
    assert name == "w_in.weight+w_out.weight+w_rec.weight"


def test_describe_writes_the_network_of_a_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, network = written(recurrent_graph(), tmp_path / "g.nir"), tmp_path / "net.yaml"
    assert main(["describe", str(path), "-o", str(network)]) == 0
    assert "0 guesses" in capsys.readouterr().out
    assert main(["check", "loihi_2", str(path), "--network", str(network), "--json"]) in (0, 1)
    assert "w_in.weight+w_rec.weight" in json.loads(capsys.readouterr().out)["layers"]


def test_an_older_version_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = written(recurrent_graph(), tmp_path / "g.nir"), tmp_path / "old.nir"
    assert main(["project", "dynap_se", str(path), "-o", str(out), "--nir-version", "1.0.4"]) == 0
    assert not [name for name in contents(out) if name.endswith("v_reset")]
    assert contents(out)["version"][1] == b"1.0.4"
    assert nir.read(out).nodes["hidden"].v_reset.tolist() == [0.0] * 40
    reset = recurrent_graph()
    reset.nodes["hidden"].v_reset += 0.5
    written(reset, path)
    assert main(["project", "dynap_se", str(path), "-o", str(tmp_path / "x.nir"), "--nir-version", "1.0.4"]) == 2
    assert "'hidden' resets to other values than 0, which 1.0.4 cannot say" in capsys.readouterr().err
    assert not (tmp_path / "x.nir").exists()
    assert main(["project", "dynap_se", str(path), "-o", str(tmp_path / "x.nir"), "--nir-version", "0.1"]) == 2
    assert "needed 1.0.4" in capsys.readouterr().err
    newer = recurrent_graph()
    newer.nodes["readout"] = nir.CubaLI(*(np.ones(7, dtype=np.float32) for _ in range(5)))
    written(newer, path)
    assert main(["project", "dynap_se", str(path), "-o", str(tmp_path / "x.nir"), "--nir-version", "1.0.4"]) == 2
    assert "'readout' is of type 'CubaLI', which 1.0.4 does not have" in capsys.readouterr().err
    np.savez(tmp_path / "m.npz", w=random(3, 3))
    command = ["project", "dynap_se", str(tmp_path / "m.npz"), "-o", str(tmp_path / "x.npz"), "--nir-version", "1.0.4"]
    assert main(command) == 2
    assert "--nir-version is for outputs that end in .nir" in capsys.readouterr().err


def test_a_graph_is_not_made_from_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "m.npz", w=random(3, 3))
    assert main(["project", "dynap_se", str(tmp_path / "m.npz"), "-o", str(tmp_path / "x.nir")]) == 2
    assert "a .nir needs a graph" in capsys.readouterr().err
    assert not (tmp_path / "x.nir").exists()


def _replaced(path: str, value: Any) -> Callable[[Any], object]:
    def edit(file: Any) -> None:
        del file[f"node/nodes/{path}"]
        file[f"node/nodes/{path}"] = value

    return edit


def _future(file: Any) -> None:
    del file["version"]
    file["version"] = "2.0.0"


def _nan(file: Any) -> None:
    file["node/nodes/w_rec/weight"][2, 3] = np.nan


def _linked(file: Any) -> None:
    del file["node/nodes/w_rec"]
    file["node/nodes/w_rec"] = h5py.ExternalLink("other.nir", "/node/nodes/w_rec")


def _linked_weight(file: Any) -> None:
    del file["node/nodes/w_rec/weight"]
    file["node/nodes/w_rec/weight"] = h5py.SoftLink("/node/nodes/w_in/weight")


def _two_of_one_name(file: Any) -> None:
    graph = file["node/nodes"].create_group("block")
    graph["type"] = "NIRGraph"
    graph["edges"] = np.zeros((0, 2), dtype="S1")
    file.copy("node/nodes/w_rec", graph.create_group("nodes"), "w")
    file.copy("node/nodes/w_rec", file["node/nodes"], "block.w")


def _all_of_unknown_types(file: Any) -> None:
    for name in ("w_in", "w_rec", "w_out"):
        _replaced(f"{name}/type", "Strange")(file)


def _three_ends(file: Any) -> None:
    del file["node/edges"]
    file["node/edges"] = np.zeros((1, 3), dtype="S3")


def _no_edge(file: Any) -> None:
    file["node/edges"][0] = [b"nowhere", b"w_in"]


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (_replaced("w_rec/weight", random(39, 40)), "'w_rec' has 39 rows, and drives the 40 neurons of 'hidden'"),
        (lambda file: file["node/nodes"].move("w_rec", "w/rec"), "'w' has no type"),
        (_three_ends, r"edges of shape \(1, 3\); needed two names each"),
        (_replaced("hidden/v_threshold", np.ones(3, dtype=np.float32)), "3 of v_threshold; needed one for each"),
        (_replaced("hidden/tau", np.full(40, np.nan)), r"'hidden' \(LIF\) has NaN in 'tau'"),
        (lambda file: file["node/nodes/hidden"].__delitem__("tau"), r"'hidden' \(LIF\) has no 'tau'"),
        (lambda file: file["node/nodes"].move("w_rec", "w" * 400), "a node's name has 400 characters; needed at most"),
        (_future, "NIR version '2.0.0'; this program knows 0 and 1"),
        (_nan, r"'w_rec.weight' has nan at \[2, 3\]"),
        (_linked, "truncated or damaged|node 'w_rec' is a link"),
        (_linked_weight, "node 'w_rec' is a link, or has one"),
        (_two_of_one_name, "two nodes are called 'block.w'"),
        (_no_edge, "an edge of 'nowhere', which is no node"),
        (lambda file: file.__delitem__("node"), "an HDF5 file without a graph"),
        (lambda file: file["node/nodes/w_rec"].__delitem__("type"), "node 'w_rec' has no type; needed one"),
        (_all_of_unknown_types, r"no weights: .*a node of unknown type, 'w_in' \(Strange\)"),
    ],
)
def test_damaged_graphs_are_refused_in_one_line(edit: Any, said: str, tmp_path: Path) -> None:
    path = edited(written(recurrent_graph(), tmp_path / "g.nir"), edit)
    with pytest.raises(ModelError, match=said) as caught:
        qrsolve.check("dynap_se", path)
    assert "\n" not in str(caught.value)


def test_none_in_metadata_stays(tmp_path: Path) -> None:
    """h5py writes nothing as an empty dataset."""
    path = edited(
        written(recurrent_graph(), tmp_path / "g.nir"),
        lambda file: file["node"].require_group("metadata").__setitem__("x", h5py.Empty("f")),
    )
    assert main(["project", "dynap_se", str(path), "-o", str(tmp_path / "out.nir")]) == 0
    with h5py.File(tmp_path / "out.nir") as file:
        assert file["node/metadata/x"].shape is None


@pytest.mark.parametrize("keep", [0, 100, 3000])
def test_a_truncated_file_is_refused(keep: int, tmp_path: Path) -> None:
    path = written(recurrent_graph(), tmp_path / "g.nir")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"truncated or damaged|the file is empty"):
        read_model(path)


@pytest.mark.parametrize("seed", range(60))
def test_flipped_bytes_are_read_or_refused_in_one_line(seed: int, tmp_path: Path) -> None:
    path, rng = written(recurrent_graph(), tmp_path / "g.nir"), np.random.default_rng(seed)
    data = bytearray(path.read_bytes())
    for at in rng.integers(0, len(data) // (1 if seed % 2 else 8), size=1 + seed % 20):
        data[at] = rng.integers(256)
    path.write_bytes(data)
    said = ""
    try:
        qrsolve.project("loihi_2", path)
    except qrsolve.QRSolveError as error:
        said = str(error)
    assert "\n" not in said


def test_a_heap_of_texts_without_an_end_is_refused(tmp_path: Path) -> None:
    """HDF5 itself would read it for ever."""
    path = written(recurrent_graph(), tmp_path / "g.nir")
    data = bytearray(path.read_bytes())
    start = data.index(b"GCOL\x01")
    at = start + 16
    while any(data[at : at + 2]):
        at += 16 + -(-int.from_bytes(data[at + 8 : at + 16], "little") // 8) * 8
    data[at + 8 : at + 16] = bytes(8)
    path.write_bytes(data)
    with pytest.raises(ModelError, match="truncated or damaged: the heap of texts at byte"):
        read_model(path)


def test_what_is_no_hdf5_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.nir"
    path.write_text("not a graph, but long enough to look at")
    with pytest.raises(ModelError, match=r"ends in '\.nir', but holds something that is no model format"):
        read_model(path)


def test_without_h5py_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(recurrent_graph(), tmp_path / "g.nir")
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ModelError, match=r"\.nir files need h5py; install it with pip install 'qrsolve\[nir\]'"):
        read_model(path)


def test_roles_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = written(recurrent_graph(), tmp_path / "g.nir")
    with pytest.raises(ShapeError):
        qrsolve.check("dynap_se", path, groups=[("w_in.weight", "w_out.weight")])


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data/nir, networks that other people made")
@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize(
    "name", ["braille_noDelay_bias_zero", "braille_noDelay_noBias_subtract", "lif_norse", "lif_rockpool"]
)
def test_networks_of_others(name: str, chip: str, tmp_path: Path) -> None:
    out = tmp_path / "out.nir"
    assert main(["project", chip, str(SHARED / f"{name}.nir"), "-o", str(out)]) == 0
    assert main(["check", chip, str(out)]) == 0
    before, after = contents(SHARED / f"{name}.nir"), contents(out)
    assert all(before[key] == after[key] for key in before if not key.endswith("/weight"))
    buffer = io.BytesIO(out.read_bytes())
    assert h5py.File(buffer)["node/metadata/qrsolve/json"][()]


@pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data/nir, networks that other people made")
def test_a_convolutional_network_of_others(tmp_path: Path) -> None:
    path, out = SHARED / "cnn_sinabs.nir", tmp_path / "out.nir"
    assert main(["project", "loihi_2", str(path), "-o", str(out)]) == 0
    assert main(["check", "loihi_2", str(out)]) == 0
    with pytest.raises(qrsolve.InfeasibleError, match="has no room for this network"):
        qrsolve.project("dynap_se", path)


def test_codes_of_a_graph_have_its_wiring(tmp_path: Path) -> None:
    path = written(recurrent_graph(), tmp_path / "g.nir")
    assert main(["project", "xylo_audio_2", str(path), "-o", str(tmp_path / "p.nir")]) == 0
    assert main(["export", "xylo_audio_2", str(tmp_path / "p.nir"), "-o", str(tmp_path / "codes.npz")]) == 0
    graph, codes = (qrsolve.check("xylo_audio_2", tmp_path / name) for name in ("p.nir", "codes.npz"))
    assert [row.to_dict() for row in graph.rows] == [row.to_dict() for row in codes.rows]
    assert graph.undecided == codes.undecided


def test_a_step_is_for_graphs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(recurrent_graph(), tmp_path / "g.nir")
    assert main(["project", "dynap_se", str(path), "-o", str(tmp_path / "p.nir")]) == 0
    assert main(["export", "dynap_se", str(tmp_path / "p.nir"), "-o", str(tmp_path / "c.npz"), "--dt", "0.1"]) == 2
    assert "dynap_se states no neurons" in capsys.readouterr().err
    assert main(["export", "dynap_se", str(tmp_path / "p.nir"), "-o", str(tmp_path / "c.npz")]) == 0
    assert main(["export", "dynap_se", str(tmp_path / "c.npz"), "-o", str(tmp_path / "d.npz"), "--dt", "0.1"]) == 2
    assert "c.npz: no NIR graph; a step" in capsys.readouterr().err
    assert not (tmp_path / "d.npz").exists()


def spiking_chain(n_inputs: int = 64, n_outputs: int = 10) -> Any:
    share = np.full(20, 2e-3, dtype=np.float32)
    nodes = {
        "input": nir.Input(np.array([n_inputs])),
        "w1": nir.Linear(random(20, n_inputs)),
        "n1": lif(20, tau=share),
        "w2": nir.Linear(2 * random(n_outputs, 20, seed=1)),
        "n2": lif(n_outputs, tau=share[:n_outputs]),
        "output": nir.Output(np.array([n_outputs])),
    }
    return nir.NIRGraph(nodes, list(pairwise(nodes)))


def test_project_reports_the_accuracy_in_integers_beside_floats(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn", reason="needs scikit-learn: pip install 'qrsolve[train]'")
    path, out = written(spiking_chain(), tmp_path / "a.nir"), str(tmp_path / "b.nir")
    on_digits = ["--data", "digits", "--dt", "1e-3", "--force"]
    assert main(["project", "loihi_2", str(path), "-o", out, "--json", *on_digits]) == 0
    found = json.loads(capsys.readouterr().out)["in_integers"]
    assert found["agreement"] > 0.9
    assert abs(found["accuracy"] - found["in_floats"]) < 0.05
    assert found["reason"] == ""
    assert main(["project", "loihi_2", str(path), "-o", out, *on_digits]) == 0
    assert "in the chip's integers" in capsys.readouterr().out
    assert main(["project", "dynap_se", str(path), "-o", out, *on_digits]) == 0
    assert "not simulated in integers: dynap_se states no neurons" in capsys.readouterr().out
    other = written(spiking_chain(n_inputs=60), tmp_path / "c.nir")
    assert main(["project", "loihi_2", str(other), "-o", out, *on_digits]) == 0
    said = "not simulated in integers: the network has 60 sources and 10 outputs; digits needs 64 and 10"
    assert said in capsys.readouterr().out
    again = written(recurrent_graph(), tmp_path / "d.nir")
    assert main(["project", "loihi_2", str(again), "-o", out, *on_digits]) == 0
    assert "not simulated in integers: the neurons of 'w_out.weight' are not known" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--data", "digits"], "--data and --dt go together"),
        (["--dt", "1e-3"], "--data and --dt go together"),
        (["--data", "faces", "--dt", "1e-3"], "--data is 'faces'; this version has digits, mnist, cifar10"),
    ],
)
def test_what_a_simulation_needs_is_said(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = written(spiking_chain(), tmp_path / "a.nir"), tmp_path / "b.nir"
    assert main(["project", "loihi_2", str(path), "-o", str(out), *options]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()
