"""The command: files, printed lines, and options that contradict each other."""

import csv
import dataclasses
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
from i2l_meshnet.evaluation.annotated import DrawingOptions, ScoringOptions, StageName
from i2l_meshnet.evaluation.benchmark import RESULTS, Share, require_own_folder
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


@pytest.fixture
def published(tmp_path: Path, dataset_root: Path, body_directory: Path, smpl: Body) -> EvaluateOptions:
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
    return EvaluateOptions(
        "Human36M",
        root=dataset_root,
        out=tmp_path / "out",
        network=SystemOptions(weights=snapshot, body_dir=body_directory, device="cpu"),
        scoring=ScoringOptions(stage="param"),
        drawing=DrawingOptions(pictures=1, plots=False),
    )


def test_a_published_snapshot_evaluates(published: EvaluateOptions) -> None:
    assert evaluate.run(published) == 0
    found = json.loads((published.out / "metrics.json").read_text())
    assert found["weights"] == "snapshot_17.pth.tar"
    assert set(found["metrics"]) == {"lixel", "param"}
    # An untrained network gives a small body without a pose; the truth's joints are some 0.5 m from the root.
    assert 100 < found["metrics"]["param"]["mpjpe_mm"] < 2000


def test_two_processes_give_the_results_of_one(
    published: EvaluateOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """3DPW: five samples in three batches, of which the first process scores two."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    options = dataclasses.replace(published, data="PW3D", scoring=ScoringOptions("param", batch_size=2))
    assert evaluate.run(options) == 0
    printed = capsys.readouterr().out.splitlines()
    network = dataclasses.replace(options.network, gpu="0-1")
    shared = dataclasses.replace(options, network=network, out=options.out.with_name("shared"))
    assert evaluate.run(shared) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(printed)
    names = {path.name for path in options.out.iterdir()}
    assert {path.name for path in shared.out.iterdir()} == names
    # Samples are scored together in other numbers, so float32 rounds in another order.
    for name in (name for name in names if name.endswith(".csv")):
        found, wanted = (
            [cell for row in csv.reader((out / name).open()) for cell in row] for out in (shared.out, options.out)
        )
        for cell, other in zip(found, wanted, strict=True):
            assert cell == other or float(cell) == pytest.approx(float(other), abs=1e-3)


@pytest.mark.usefixtures("stand_in")
def test_a_folder_has_the_results_of_one_dataset_split_and_stage(
    dataset_root: Path, body_directory: Path, tmp_path: Path
) -> None:
    def run(data: str, stage: StageName = "param", split: str | None = None, pictures: int = 2) -> None:
        drawing = DrawingOptions(pictures=pictures, plots=False)
        scoring = ScoringOptions(stage, gt_root=split is not None)
        network = SystemOptions(body_dir=body_directory)
        evaluate.run(
            EvaluateOptions(data, dataset_root, split, out=tmp_path, network=network, scoring=scoring, drawing=drawing)
        )

    run("Human36M")
    run("Human36M", "auto", pictures=1)
    assert [path.name for path in tmp_path.glob("worst_*.jpg")] == ["worst_1.jpg"]
    before = (tmp_path / "metrics.json").read_bytes()
    for other in (
        lambda: run("PW3D"),
        lambda: run("Human36M", split="train"),
        lambda: run("Human36M", "lixel"),
    ):
        with pytest.raises(InputError) as caught:
            other()
        assert caught.value.argument == "out"
    assert (tmp_path / "metrics.json").read_bytes() == before


@pytest.mark.parametrize("name", RESULTS)
def test_results_of_other_programs_are_not_replaced(name: str, tmp_path: Path) -> None:
    identity = {"data": "real-multiview"}
    require_own_folder(tmp_path, identity)
    for content in ('{"data": "real-multiview"}', '{"weights": "mine", "data": "real-multiview"}'):
        (tmp_path / name).write_text(content)
        require_own_folder(tmp_path, identity)
    for content in ("[]", "{", '{"data": "coco-keypoints", "annotations": "a.json"}'):
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError) as caught:
            require_own_folder(tmp_path, identity)
        assert caught.value.argument == "out"


@pytest.mark.parametrize("items", [0, 1, 2, 7])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_shares_are_all_batches_in_order(items: int, count: int) -> None:
    batches = list(range(items))
    shares = [Share(index, count).of(batches) for index in range(count)]
    assert [batch for share in shares for batch in share] == batches
    assert len(shares[0]) == max(map(len, shares))
