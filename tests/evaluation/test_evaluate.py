"""The command: files, printed lines, and options that contradict each other."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from known_network import KnownBody, KnownNetwork
from toy_benchmark import GRID

from i2l_meshnet.bodies import Body
from i2l_meshnet.errors import InputError
from i2l_meshnet.evaluation import evaluate, plots
from i2l_meshnet.evaluation.annotated import DrawingOptions, ScoringOptions
from i2l_meshnet.evaluation.evaluate import EvaluateOptions, SystemOptions
from i2l_meshnet.evaluation.protocols import HUMAN36M_SCORED
from i2l_meshnet.models import assembly
from i2l_meshnet.models.snapshot import PREFIXES


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, smpl: Body) -> None:
    """A network that needs no file."""
    generator = torch.Generator().manual_seed(0)
    lixels = torch.rand(5, 6890, 3, generator=generator) * 16 + 24
    body = KnownBody(torch.randn(5, 6890, 3, generator=generator) * 0.3, smpl)
    monkeypatch.setattr(evaluate, "load_network", lambda *_: (KnownNetwork(lixels, GRID), body, None))
    monkeypatch.setattr(evaluate, "shipped_weights", lambda: Path("default.safetensors"))


@pytest.mark.usefixtures("stand_in")
def test_writes_numbers_tables_and_pictures(
    dataset_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, scoring, drawing = tmp_path / "new", ScoringOptions(batch_size=2), DrawingOptions(pictures=2)
    assert evaluate.run(EvaluateOptions("Human36M", root=dataset_root, out=out, scoring=scoring, drawing=drawing)) == 0
    found = json.loads((out / "metrics.json").read_text())
    assert found["samples"] == found["samples_with_truth"] == 3
    line = f"MPJPE from lixel mesh: {found['metrics']['lixel']['mpjpe_mm']:.2f} mm"
    assert capsys.readouterr().out.splitlines()[0] == line
    assert list(found["joints_mm"]["param"]) == list(HUMAN36M_SCORED)
    pictures = {"worst_1.jpg", "worst_2.jpg", "error_histogram.png", "joint_errors.png"}
    written = {path.name for path in out.iterdir()}
    assert written == {"metrics.json", "samples.csv", "groups.csv", "joints.csv"} | pictures


@pytest.mark.usefixtures("stand_in")
def test_without_ground_truth_and_matplotlib_images_are_drawn(
    dataset_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plots, "available", lambda: False)
    options = EvaluateOptions("MSCOCO", root=dataset_root, out=tmp_path, scoring=ScoringOptions(stage="lixel"))
    assert evaluate.run(options) == 0
    assert "i2l-meshnet[plots]" in capsys.readouterr().out
    images = {"sample_1.jpg", "sample_2.jpg", "sample_3.jpg"}
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.json", "samples.csv"} | images


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: ScoringOptions(batch_size=0), "batch_size"),
        (lambda: ScoringOptions(samples=0), "samples"),
        (lambda: DrawingOptions(pictures=-1), "pictures"),
        (lambda: EvaluateOptions("PW3D", every=0), "every"),
        (lambda: EvaluateOptions("PW3D", images=Path("a")), "images"),
        (lambda: EvaluateOptions("coco-keypoints", annotations=Path("a")), "images"),
    ],
)
def test_options_that_contradict_are_refused(make: Callable[[], object], argument: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert caught.value.argument == argument


def test_a_published_snapshot_evaluates(dataset_root: Path, body_directory: Path, smpl: Body, tmp_path: Path) -> None:
    """The published command: `--weights snapshot_17.pth.tar --data Human36M --stage param`, with a small ResNet."""
    network = assembly.build_published(assembly.published_config(smpl, "resnet18"), smpl.joint_regressor)
    state = {}
    for key, value in network.state_dict().items():
        theirs, ours = next(pair for pair in PREFIXES.items() if key.startswith(pair[1]))
        # An untrained regressor would count as absent.
        value = value + 1 if key.endswith("num_batches_tracked") else value
        state[f"module.{theirs}{key.removeprefix(ours)}"] = value
    snapshot = tmp_path / "snapshot_17.pth.tar"
    torch.save({"epoch": 17, "network": state, "optimizer": {}}, snapshot)
    options = EvaluateOptions(
        "Human36M",
        root=dataset_root,
        out=tmp_path / "out",
        network=SystemOptions(weights=snapshot, body_dir=body_directory, device="cpu"),
        scoring=ScoringOptions(stage="param"),
        drawing=DrawingOptions(pictures=1, plots=False),
    )
    assert evaluate.run(options) == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["weights"] == "snapshot_17.pth.tar"
    assert set(found["metrics"]) == {"lixel", "param"}
    # An untrained network gives a small body without a pose; the truth's joints are some 0.5 m from the root.
    assert 100 < found["metrics"]["param"]["mpjpe_mm"] < 2000
