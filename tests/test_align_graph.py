"""A policy in one file answers as the policy does, and is refused where it is not what it is taken for."""

from __future__ import annotations

import json
import zipfile
from importlib.util import find_spec
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import pytest
import torch

from align.cli import main
from align.graph.compare import answer_of, compare, normalised, random_observation
from align.graph.contract import ContractError
from align.graph.decompositions import solved
from align.graph.describe import Source, document_of, tokenizer_json
from align.graph.module import PolicyGraph
from align.graph.noise import normal
from align.graph.runtime import DOCUMENT, GraphPolicy
from align.graph.words import ids_of, tokenizer_of
from align.graph.write import write
from pipeline.errors import UserError
from pretrain.model.policy_kinecloud import KinecloudPolicy
from tests.align_runs import command
from tests.graph_policies import VARIANTS, graph_policy, inverse_dynamics

SOURCE = Source("f00d", "cc-by-4.0")
onnx = pytest.mark.skipif(find_spec("onnxscript") is None, reason="onnxscript is not installed")


@pytest.fixture(scope="module")
def policy() -> KinecloudPolicy:
    return inverse_dynamics(waypoints=3, depth=True, scene="depth", layers=1)


@pytest.fixture(scope="module")
def program(policy: KinecloudPolicy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("program") / "policy.pt2"
    write(policy, SOURCE, file)
    return file


@pytest.fixture(scope="module")
def graph(program: Path) -> GraphPolicy:
    return GraphPolicy(program)


@pytest.fixture(scope="module")
def onnx_file(policy: KinecloudPolicy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("onnx") / "policy.onnx"
    write(policy, SOURCE, file)
    return file


@pytest.mark.parametrize("name", VARIANTS)
def test_as_a_function_of_tensors_every_kind_of_policy_answers_the_same(name: str) -> None:
    policy, random = VARIANTS[name](), np.random.default_rng(3)
    module, document = PolicyGraph(policy), json.loads(json.dumps(document_of(policy, SOURCE)))
    graph = object.__new__(GraphPolicy)  # all of it but the file
    graph.document, graph._tokenizer = document, tokenizer_of(document, tokenizer_json(policy))

    def run(feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        with torch.no_grad():
            return [value.numpy() for value in module(**{k: torch.from_numpy(v) for k, v in feeds.items()})]

    graph._run = run
    for _ in range(5):
        observation = random_observation(policy, random)
        expected, found = answer_of(policy, observation), normalised(policy, graph.predict(**observation))
        assert expected.keys() == found.keys()
        for output, value in expected.items():
            np.testing.assert_allclose(found[output], value, atol=2e-5, err_msg=f"{name}: {output}")


def test_a_program_answers_as_its_policy(policy: KinecloudPolicy, graph: GraphPolicy) -> None:
    (differences,) = compare(policy, [graph], 20)
    assert {"actions", "points", "grasp", "opening", "waypoints"} == set(differences.absolute)
    assert not differences.beyond()


@onnx
def test_an_onnx_file_answers_as_its_policy(policy: KinecloudPolicy, onnx_file: Path) -> None:
    graph = GraphPolicy(onnx_file, threads=1)
    (differences,) = compare(policy, [graph], 20)
    assert not differences.beyond()
    observation = random_observation(policy, np.random.default_rng(9))
    np.testing.assert_allclose(graph.act(**observation), policy.act(**observation), atol=1e-5)


@onnx
def test_an_onnx_file_tells_what_it_is_and_is_held_to_it(onnx_file: Path, tmp_path: Path) -> None:
    document = GraphPolicy(onnx_file, {"policy_sha256": "f00d", "action.rate_hz": 20.0}).document
    assert (document["license"], document["action"]["names"]) == ("cc-by-4.0", ["dx", "dy", "dz", "gripper"])
    with pytest.raises(ContractError, match=r"action\.names: the graph says \['dx'.*you expect \['x'\]"):
        GraphPolicy(onnx_file, {"action.names": ["x"]})
    with pytest.raises(ContractError, match=r"holds no action\.colour"):
        GraphPolicy(onnx_file, {"action.colour": "red"})
    changes: list[tuple[dict[str, Any], str]] = [
        (
            {"camera": {"convention": "OpenGL axes"}},
            "camera.convention: the graph says 'OpenGL axes'; this code 'OpenCV",
        ),
        ({"format": "kinecloud-policy-graph/0"}, "format: the graph says 'kinecloud-policy-graph/0'; this code"),
        ({"inputs": document["inputs"][:-1]}, r"inputs depth: the metadata says nothing.*float32 \[1, 32, 32\]"),
        ({"outputs": [{**document["outputs"][0], "shape": [1, 2, 4]}, *document["outputs"][1:]]}, r"\[1, 2, 4\]; the"),
        ({"text": {**document["text"], "rule": "letters"}}, "text.rule: the graph says 'letters'; this code 'UTF-8"),
    ]
    for change, message in changes:
        with pytest.raises(ContractError, match=message):
            GraphPolicy(_relabelled(onnx_file, tmp_path / "other.onnx", {**document, **change}))


def _relabelled(file: Path, other: Path, document: dict[str, Any]) -> Path:
    import onnx

    model = onnx.load(file)
    for row in model.metadata_props:
        if row.key == DOCUMENT:
            row.value = json.dumps(document)
    onnx.save(model, other)
    return other


def test_running_an_onnx_file_loads_no_torch() -> None:
    done = command("-c", "import sys, align.graph.runtime; sys.exit('torch' in sys.modules)")
    assert done.returncode == 0, done.stderr


@onnx
def test_an_onnx_file_names_no_place_of_the_machine_that_made_it(onnx_file: Path) -> None:
    content = onnx_file.read_bytes()
    assert str(Path(__file__).parents[1]).encode() not in content
    assert b"site-packages" not in content


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ("data/sample_inputs/model.pt", b"\x80\x04."),
        ("data/weights/model.pt", b"\x80\x04."),
        ("data/aotinductor/model/run.so", b"\x7fELF"),
        (
            "data/constants/model_constants_config.json",
            b'{"config": {"x": {"path_name": "tensor_0", "use_pickle": true}}}',
        ),
    ],
)
def test_a_program_with_anything_to_unpickle_is_refused(
    program: Path, tmp_path: Path, part: str, content: bytes
) -> None:
    bad = tmp_path / "bad.pt2"
    with zipfile.ZipFile(program) as old, zipfile.ZipFile(bad, "w") as new:
        top = old.namelist()[0].split("/")[0]
        for name in old.namelist():
            if name != f"{top}/{part}":
                new.writestr(name, old.read(name))
        new.writestr(f"{top}/{part}", content)
    with pytest.raises(ContractError, match="expected"):
        GraphPolicy(bad)


def test_observations_that_do_not_fit_are_refused(policy: KinecloudPolicy, graph: GraphPolicy) -> None:
    observation = random_observation(policy, np.random.default_rng(0))
    changes: list[tuple[dict[str, Any], str]] = [
        ({"proprio": np.zeros(2)}, r"proprio has shape \[2\]; expected \[3\]"),
        ({"embodiment": "octopus"}, "this policy knows: unknown, human-hand"),
        ({"depth_HW": None}, "depth_HW is missing"),
        ({"proprio": np.full(3, np.nan)}, "proprio holds values that are not finite"),
        ({"depth_HW": np.full(observation["depth_HW"].shape, np.nan)}, "depth_HW holds values that are not finite"),
        ({"past_grasp_P3": np.full((4, 3), np.nan)}, "past_grasp_P3 holds values that are not finite"),
        ({"past_clouds_PN3": np.ones((4, 1, 3)), "past_visible_PN": None}, "takes 2 or more"),
    ]
    for change, message in changes:
        with pytest.raises(ValueError, match=message):
            graph.act(**{**observation, **change})


def test_what_cannot_be_exported_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ends in .tflite; known: .onnx, .pt2"):
        write(graph_policy(), SOURCE, tmp_path / "policy.tflite")
    with pytest.raises(UserError, match=r"config.depth with config.dimensions 2"):
        write(graph_policy(depth=True, dimensions=2), SOURCE, tmp_path / "policy.pt2")


def test_the_command_publishes_a_checked_file(
    policy: KinecloudPolicy,
    program: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    policy.save_pretrained(tmp_path / "policy")
    words = ["align", "graph", "--policy", str(tmp_path / "policy"), "--out", str(tmp_path / "made" / "policy.pt2")]
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.setattr("align.graph.write.write", lambda policy, source, file: copyfile(program, file))
    assert main() == 0
    assert "largest difference from the policy in 20 trials: actions" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["policy.pt2"]
    monkeypatch.setattr("align.graph.compare.TOLERANCE", 0.0)
    monkeypatch.setattr("sys.argv", [*words[:-1], str(tmp_path / "made" / "other.pt2")])
    assert main() == 2
    assert "answers differently from the policy, and was not written" in capsys.readouterr().err
    assert not (tmp_path / "made" / "other.pt2").exists()


@pytest.mark.parametrize("shape", [(1,), (4, 3), (15,), (16,), (17,), (5, 33, 3)])
def test_noise_is_what_torch_draws(shape: tuple[int, ...]) -> None:
    for seed in (0, 7, 2**32 - 1):
        drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        np.testing.assert_allclose(normal(shape, seed), drawn.numpy(), atol=2e-6)


def test_solving_written_out_agrees_with_torch() -> None:
    random = torch.Generator().manual_seed(0)
    points = torch.randn(50, 9, 3, generator=random, dtype=torch.float64)
    matrix, right = points.transpose(1, 2) @ points, torch.randn(50, 3, 4, generator=random, dtype=torch.float64)
    assert torch.allclose(solved(matrix, right), torch.linalg.solve(matrix, right), atol=1e-9)


def test_bytes_of_an_instruction() -> None:
    text = {"kind": "bytes", "max_bytes": 4}
    assert ids_of(" Öffne ", text, None).tolist() == [[256, *"öff".encode()]]
    assert ids_of("", text, None).tolist() == [[256, 257]]
