"""The whole path from pictures to numbers: a network that knows the truth has no error, and bad input is told."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from known_network import KnownBody, KnownNetwork
from toy_benchmark import FITTED, GRID, PROTOCOL, ToyBenchmark, make_toy_benchmark

from i2l_meshnet.bodies import Body, load_body
from i2l_meshnet.data.dataset import PersonDataset
from i2l_meshnet.data.sources import ADAPTERS, Source, open_source
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.evaluation import clips, evaluate, protocols
from i2l_meshnet.evaluation.evaluate import (
    EvaluateOptions,
    build_benchmark,
    draw_samples,
    fit_boxes,
    mesh_kinds,
    predict_meshes,
)
from i2l_meshnet.evaluation.protocols import PROTOCOLS, Protocol
from i2l_meshnet.evaluation.report import Evaluation
from i2l_meshnet.evaluation.scoring import Meshes
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.models import assembly
from i2l_meshnet.models.snapshot import PREFIXES

MILLIMETRES = 5e-3
"""Lixels are float32 numbers up to 64, in steps of 4e-6: 1e-7 m of depth, and as much across."""
PERFECT = {"mpjpe": 0, "pa_mpjpe": 0, "mpvpe": 0, "pa_mpvpe": 0, "pck_150": 100, "auc_150": 100}


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> ToyBenchmark:
    return make_toy_benchmark(tmp_path_factory.mktemp("toys"))


def with_depths(source: Source, depths: np.ndarray) -> Source:
    """The source with other root depths."""
    table = source.table
    arrays = {**table.arrays, "root_depth": depths.astype(np.float32)}
    return dataclasses.replace(source, table=dataclasses.replace(table, arrays=arrays))


def evaluated(
    toys: ToyBenchmark, protocol: Protocol = PROTOCOL, lixels: torch.Tensor | None = None, **options: object
) -> Evaluation:
    ready = build_benchmark(toys.source, protocol, toys.body, GRID, toys.source.folder)
    # Parametric meshes come without a place in space.
    body = KnownBody(toys.vertices - 7, toys.body)
    network = KnownNetwork(toys.lixels if lixels is None else lixels, GRID)
    found, submission = evaluate.evaluate(network, body, ready, ("lixel", "param"), **options)  # type: ignore[arg-type]
    assert submission is None
    return found


@pytest.mark.parametrize("protocol", [PROTOCOL, FITTED], ids=["joints", "fit"])
@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_the_truth_has_no_error(toys: ToyBenchmark, protocol: Protocol, batch_size: int) -> None:
    found = evaluated(toys, protocol, batch_size=batch_size)
    assert len(found) == found.scored == 5
    for kind in ("lixel", "param"):
        for metric, value in PERFECT.items():
            # The first threshold of AUC is 0, which rounding fails.
            assert found.mean(kind, metric) == pytest.approx(value, abs=4 if metric == "auc_150" else MILLIMETRES)
        assert found.errors[kind].distances.shape == (5, len(toys.body.skeleton) - 1)


def test_a_shift_moves_only_the_unaligned_metrics(toys: ToyBenchmark) -> None:
    """One vertex moved by 0.25 m of depth: everything else about the sample stays."""
    lixels = toys.lixels.clone()
    row = int((toys.body.joint_regressor[toys.body.skeleton.index("L_Wrist")]).argmax())
    lixels[3, row, 2] += 8
    found, plain = evaluated(toys, lixels=lixels), evaluated(toys)
    changed = np.abs(found.errors["lixel"].metrics - plain.errors["lixel"].metrics) > MILLIMETRES
    assert changed[3, :4].all()
    assert not changed[[0, 1, 2, 4]].any()
    np.testing.assert_array_equal(found.errors["param"].metrics, plain.errors["param"].metrics)


def test_results_depend_neither_on_batches_nor_on_threads(toys: ToyBenchmark) -> None:
    lixels = toys.lixels + torch.randn(toys.lixels.shape, generator=torch.Generator().manual_seed(3))
    one, many = evaluated(toys, lixels=lixels, batch_size=1, workers=1), evaluated(toys, lixels=lixels, workers=4)
    for kind in ("lixel", "param"):
        np.testing.assert_allclose(one.errors[kind].metrics, many.errors[kind].metrics, rtol=0, atol=MILLIMETRES)


def test_true_depth_replaces_the_annotated_one(toys: ToyBenchmark) -> None:
    wrong = with_depths(toys.source, toys.source.table.arrays["root_depth"] * 1.2)
    ready = build_benchmark(wrong, PROTOCOL, toys.body, GRID, wrong.folder, true_depth=True)
    network = KnownNetwork(toys.lixels, GRID)
    off, _ = evaluate.evaluate(network, toys.body, ready, ("lixel",))
    on, _ = evaluate.evaluate(network, toys.body, ready, ("lixel",), true_depth=True)
    assert off.mean("lixel", "mpjpe") > 20
    assert on.mean("lixel", "mpjpe") < MILLIMETRES


def test_samples_without_truth_are_left_out_of_the_means(tmp_path: Path) -> None:
    toys = make_toy_benchmark(tmp_path, without_truth=(1, 4))
    found = evaluated(toys)
    assert (len(found), found.scored) == (5, 3)
    assert np.isnan(found.errors["lixel"].metrics[[1, 4]]).all()
    assert found.mean("lixel", "mpjpe") < MILLIMETRES
    assert set(found.worst(9)) == {0, 2, 3}


def test_only_the_first_samples_if_asked(toys: ToyBenchmark) -> None:
    assert evaluated(toys, samples=3).ids == (100, 101, 102)


def test_square_boxes_are_cut_to_the_aspect_of_the_crop(tmp_path: Path) -> None:
    grid = LixelGrid(crop_size=(256, 192), margin=0.25, depth_axis="crop")
    toys = make_toy_benchmark(tmp_path)
    before = toys.source.table.arrays["box"]
    narrow = fit_boxes(toys.source, grid.crop_size).table.arrays["box"]
    np.testing.assert_allclose(narrow[:, 3], before[:, 3])
    np.testing.assert_allclose(narrow[:, 2], before[:, 3] * 0.75)
    np.testing.assert_allclose(narrow[:, :2] + narrow[:, 2:] / 2, before[:, :2] + before[:, 2:] / 2)
    wide = fit_boxes(toys.source, (192, 256)).table.arrays["box"]
    np.testing.assert_allclose(wide[:, 3], before[:, 2] * 0.75)


def test_parametric_meshes_are_turned_to_the_camera(tmp_path: Path) -> None:
    """A network that sees crops alone gives bodies in the frame of its line of sight."""
    grid = LixelGrid(depth_axis="crop")
    toys = make_toy_benchmark(tmp_path, grid=grid)
    ready = build_benchmark(toys.source, PROTOCOL, toys.body, grid, tmp_path)
    dataset = PersonDataset(toys.source, crop_size=grid.crop_size)
    samples = dataset.batch(range(len(dataset)))
    turn = grid.view_rotation(samples.crop, samples.annotation.camera)
    body = KnownBody(toys.vertices @ turn, toys.body)
    found, _ = evaluate.evaluate(KnownNetwork(toys.lixels, grid), body, ready, ("lixel", "param"))
    assert found.mean("param", "mpvpe") < MILLIMETRES
    straight, _ = evaluate.evaluate(
        KnownNetwork(toys.lixels, grid), KnownBody(toys.vertices, toys.body), ready, ("lixel", "param")
    )
    assert straight.mean("param", "mpvpe") > 5


def test_another_body_is_scored_on_joints_of_the_same_names(dataset_root: Path, body_directory: Path) -> None:
    """The default network's Anny on 3DPW, whose truth is SMPL."""
    anny = load_body("anny")
    source = open_source("PW3D", dataset_root, "test")
    ready = build_benchmark(source, PROTOCOLS["PW3D"], anny, GRID, dataset_root, body_directory)
    assert ready.scorer is not None
    assert {metric.points for metric in ready.scorer.metrics} == {"joints"}
    assert "'anny'" in ready.notes[0]
    found, _ = evaluate.evaluate(KnownNetwork(torch.rand(5, 1229, 3) * 64, GRID, False), anny, ready, ("lixel",))
    assert found.joints == protocols.HUMAN36M_SCORED
    known = [number for number, metric in enumerate(found.metrics) if metric.key != "acceleration"]
    assert np.isfinite(found.errors["lixel"].metrics[:, known]).all()


def test_freihand_is_scored_where_its_truth_is(dataset_root: Path, body_directory: Path) -> None:
    """On the training split: all of the hand's metrics, F-scores included; the truth scores perfectly."""
    mano, grid = load_body("mano", body_directory), LixelGrid(depth_extent=0.3)
    source = open_source("FreiHAND", dataset_root, "train")
    ready = build_benchmark(source, PROTOCOLS["FreiHAND"], mano, grid, dataset_root, body_directory)
    assert ready.scorer is not None
    dataset = PersonDataset(ready.source)
    samples = dataset.batch(range(len(dataset)))
    truth = ready.scorer.truth(samples, torch.arange(len(dataset)))
    vertices = truth.points.vertices + truth.points.root[:, None]
    lixels = grid.from_camera(vertices, samples.crop, samples.annotation.camera, truth.points.root[:, 2])
    found, submission = evaluate.evaluate(KnownNetwork(lixels, grid), mano, ready, ("lixel",))
    assert submission is None
    # The set's joints are the hand's bones, the scored ones are read off the mesh: the stand-in's differ by some mm.
    joints = mano.joint_regressor @ vertices
    expected = (joints - joints[:, :1] - truth.points.joints).norm(dim=-1).mean() * 1000
    assert found.mean("lixel", "mpjpe") == pytest.approx(float(expected), abs=MILLIMETRES)
    assert found.mean("lixel", "pa_mpvpe") < 0.01
    assert found.mean("lixel", "pa_f_5") == found.mean("lixel", "pa_f_15") == 100


def test_released_truth_is_found_beside_the_data(dataset_root: Path, body_directory: Path, tmp_path: Path) -> None:
    mano, grid = load_body("mano", body_directory), LixelGrid(depth_extent=0.3)
    source = open_source("FreiHAND", dataset_root, "eval")
    moved = Source(source.name, source.split, tmp_path, source.table, True)
    vertices = torch.randn(3, 778, 3, generator=torch.Generator().manual_seed(1)) * 0.05 + torch.tensor([0, 0, 0.6])
    joints = mano.joint_regressor @ vertices
    (tmp_path / "data").mkdir()
    for name, values in (("xyz", joints), ("verts", vertices)):
        (tmp_path / "data" / f"evaluation_{name}.json").write_text(json.dumps(values.tolist()))
    ready = build_benchmark(moved, PROTOCOLS["FreiHAND"], mano, grid, tmp_path, body_directory, true_depth=True)
    assert ready.scorer is not None
    scores = ready.scorer(
        Meshes(torch.zeros(3, 778, 3), vertices + 1),
        PersonDataset(source).batch(range(3)),
        torch.arange(3),
        True,
    )["param"]
    assert scores.metrics[:, :4].abs().max() < 1e-5
    (tmp_path / "data" / "evaluation_xyz.json").write_text(json.dumps(joints[:2].tolist()))
    with pytest.raises(FileError, match="another split"):
        build_benchmark(moved, PROTOCOLS["FreiHAND"], mano, grid, tmp_path, body_directory)


class TestRun:
    """`evaluate.run` with a network that needs no file."""

    @pytest.fixture
    def stand_in(self, monkeypatch: pytest.MonkeyPatch, smpl: Body) -> None:
        generator = torch.Generator().manual_seed(0)
        lixels = torch.rand(5, 6890, 3, generator=generator) * 16 + 24
        body = KnownBody(torch.randn(5, 6890, 3, generator=generator) * 0.3, smpl)
        monkeypatch.setattr(evaluate, "load_network", lambda *_: (KnownNetwork(lixels, GRID), body, None))
        monkeypatch.setattr(evaluate, "default_weights", lambda: Path("default.safetensors"))

    @pytest.mark.usefixtures("stand_in")
    def test_writes_numbers_tables_and_pictures(
        self, dataset_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        options = EvaluateOptions("Human36M", root=dataset_root, out=tmp_path / "new", pictures=2, batch_size=2)
        assert evaluate.run(options) == 0
        lines = capsys.readouterr().out.splitlines()
        wording = ["MPJPE from lixel", "PA MPJPE from lixel", "MPJPE from param", "PA MPJPE from param"]
        assert [line.split(" mesh: ")[0] for line in lines[:4]] == wording
        assert all(line.endswith(" mm") for line in lines[:4])
        found = json.loads((tmp_path / "new" / "metrics.json").read_text())
        assert found["samples"] == found["samples_with_truth"] == 3
        assert lines[0] == f"MPJPE from lixel mesh: {found['metrics']['lixel']['mpjpe_mm']:.2f} mm"
        assert sum(group["samples"] for group in found["groups"].values()) == 3
        assert list(found["joints_mm"]["param"]) == list(protocols.HUMAN36M_SCORED)
        written = {path.name for path in (tmp_path / "new").iterdir()}
        pictures = {"worst_1.jpg", "worst_2.jpg", "error_histogram.png", "joint_errors.png"}
        assert written == {"metrics.json", "samples.csv", "groups.csv", "joints.csv"} | pictures
        for name in pictures:
            assert cv2.imread(str(tmp_path / "new" / name)) is not None
        assert len((tmp_path / "new" / "samples.csv").read_text().splitlines()) == 4

    @pytest.mark.usefixtures("stand_in")
    def test_a_set_without_truth_gives_pictures_only(
        self, dataset_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert evaluate.run(EvaluateOptions("MSCOCO", root=dataset_root, out=tmp_path, stage="lixel")) == 0
        assert "no 3D ground truth" in capsys.readouterr().out
        assert {path.name for path in tmp_path.glob("*.jpg")} == {"sample_1.jpg", "sample_2.jpg", "sample_3.jpg"}

    @pytest.mark.usefixtures("stand_in")
    def test_without_matplotlib_the_numbers_remain(
        self, dataset_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(evaluate.plots, "available", lambda: False)
        assert evaluate.run(EvaluateOptions("Human36M", root=dataset_root, out=tmp_path, pictures=0)) == 0
        assert "i2l-meshnet[plots]" in capsys.readouterr().out
        assert not list(tmp_path.glob("*.png"))
        assert (tmp_path / "metrics.json").is_file()

    @pytest.mark.usefixtures("stand_in")
    def test_real_multiview_asks_for_a_detector(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="person detector"):
            evaluate.run(EvaluateOptions(clips.NAME, out=tmp_path))  # type: ignore[arg-type]

    @pytest.mark.usefixtures("stand_in")
    def test_a_missing_data_set_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(FileError, match="PW3D"):
            evaluate.run(EvaluateOptions("PW3D", root=tmp_path, out=tmp_path / "out"))
        assert not (tmp_path / "out").exists()


def test_nan_predictions_name_the_annotation(toys: ToyBenchmark) -> None:
    lixels = toys.lixels.clone()
    lixels[3, 7, 1] = torch.nan
    with pytest.raises(InputError, match=r"annotation 103 \(3.png\)"):
        evaluated(toys, lixels=lixels, batch_size=2)


def test_a_missing_picture_is_told_in_one_line(tmp_path: Path) -> None:
    toys = make_toy_benchmark(tmp_path)
    (tmp_path / "2.png").unlink()
    with pytest.raises(FileError, match=r"2\.png") as caught:
        evaluated(toys)
    assert "\n" not in str(caught.value)


def test_stages_that_the_network_lacks_are_refused(toys: ToyBenchmark) -> None:
    assert mesh_kinds("auto", False) == mesh_kinds("lixel", True) == ("lixel",)
    assert mesh_kinds("auto", True) == mesh_kinds("param", True) == ("lixel", "param")
    with pytest.raises(InputError, match="--stage lixel"):
        mesh_kinds("param", False)
    dataset = PersonDataset(toys.source)
    with pytest.raises(InputError, match="--stage lixel"):
        predict_meshes(KnownNetwork(toys.lixels, GRID, False), toys.body, dataset.batch([0]), ("lixel", "param"))


def test_depths_that_are_not_known_are_refused(
    toys: ToyBenchmark, dataset_root: Path, body_directory: Path, smpl: Body
) -> None:
    coco = open_source("MSCOCO", dataset_root, "val", True)
    with pytest.raises(InputError, match="without --gt-root"):
        build_benchmark(coco, PROTOCOLS["MSCOCO"], smpl, GRID, dataset_root, body_directory, true_depth=True)
    unknown = with_depths(toys.source, np.full(5, np.nan))
    with pytest.raises(InputError, match=r"5 of 5 .* --gt-root"):
        build_benchmark(unknown, PROTOCOL, toys.body, GRID, unknown.folder)


def test_a_body_without_the_joints_is_refused(dataset_root: Path, body_directory: Path) -> None:
    source = open_source("Human36M", dataset_root, "test")
    with pytest.raises(InputError, match=r"'toy', which has no joint .*Neck"):
        build_benchmark(source, PROTOCOLS["Human36M"], load_body("toy"), GRID, dataset_root, body_directory)


def test_a_missing_regressor_is_told(dataset_root: Path, tmp_path: Path, smpl: Body) -> None:
    source = open_source("Human36M", dataset_root, "test")
    with pytest.raises(FileError, match=r"J_regressor_h36m_correct\.npy"):
        build_benchmark(source, PROTOCOLS["Human36M"], smpl, GRID, tmp_path)
    (tmp_path / "Human36M").mkdir()
    np.save(tmp_path / "Human36M" / "J_regressor_h36m_correct.npy", np.ones((17, 10)))
    with pytest.raises(FileError, match="10 vertices"):
        build_benchmark(source, PROTOCOLS["Human36M"], smpl, GRID, tmp_path)


def test_options_that_contradict_are_refused() -> None:
    for bad in ({"weights": Path("a"), "snapshot": Path("b")}, {"batch_size": 0}, {"samples": 0}, {"pictures": -1}):
        with pytest.raises(InputError):
            EvaluateOptions("PW3D", **bad)  # type: ignore[arg-type]


def test_the_worst_samples_are_drawn_with_their_errors(toys: ToyBenchmark, tmp_path: Path) -> None:
    lixels = toys.lixels.clone()
    lixels[2] = lixels[2] * 0.8 + 6
    ready = build_benchmark(toys.source, PROTOCOL, toys.body, GRID, toys.source.folder)
    found, _ = evaluate.evaluate(KnownNetwork(lixels, GRID), toys.body, ready, ("lixel",))
    network = KnownNetwork(toys.lixels[2:3], GRID)
    paths = draw_samples(network, toys.body, ready, found, ("lixel",), "cpu", tmp_path, 1)
    assert found.worst(1) == [2]
    assert [path.name for path in paths] == ["worst_1.jpg"]
    picture = cv2.imread(str(paths[0]))
    photo, drawn = np.split(picture[:400], 2, 1)
    # The photograph is black; the toy covers the middle of the panel beside it.
    assert photo.max() < 30
    assert (drawn.max(-1) > 60).mean() > 0.03


def test_every_protocol_fits_its_data_set() -> None:
    for name, protocol in PROTOCOLS.items():
        assert protocol.split in ADAPTERS[name].splits
        assert protocol.metrics[0].key == "mpjpe"
        assert protocol.metrics[1].key == "pa_mpjpe"
        if protocol.joints is not None:
            assert ADAPTERS[name].joint_regressor is not None
            assert {protocol.root, *(protocol.scored or ())} <= set(protocol.joints)


def test_a_published_snapshot_evaluates(dataset_root: Path, body_directory: Path, smpl: Body, tmp_path: Path) -> None:
    """The published command: `--snapshot snapshot_17.pth.tar --data Human36M --stage param`, with a small ResNet."""
    network = assembly.build_published(assembly.published_config(smpl, "resnet18"), smpl.joint_regressor)
    names = {ours: theirs for theirs, ours in PREFIXES.items()}
    state = {}
    for key, value in network.state_dict().items():
        ours = next(prefix for prefix in names if key.startswith(prefix))
        # An untrained regressor would be taken for a lixel stage's.
        value = value + 1 if key.endswith("num_batches_tracked") else value
        state[f"module.{names[ours]}{key.removeprefix(ours)}"] = value
    snapshot = tmp_path / "snapshot_17.pth.tar"
    torch.save({"epoch": 17, "network": state, "optimizer": {}}, snapshot)
    options = EvaluateOptions(
        "Human36M",
        snapshot=snapshot,
        root=dataset_root,
        stage="param",
        body_dir=body_directory,
        device="cpu",
        out=tmp_path / "out",
        pictures=1,
        plots=False,
    )
    assert evaluate.run(options) == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["weights"] == "snapshot_17.pth.tar"
    assert set(found["metrics"]) == {"lixel", "param"}
    # An untrained network gives a small body without a pose; the truth's joints are some 0.5 m from the root.
    assert 100 < found["metrics"]["param"]["mpjpe_mm"] < 2000
    lixel_stage = {key: value * 0 if key.endswith("batches_tracked") else value for key, value in state.items()}
    torch.save({"epoch": 12, "network": lixel_stage, "optimizer": {}}, snapshot)
    with pytest.raises(InputError, match="--stage lixel"):
        evaluate.run(options)
    snapshot.write_bytes(b"nothing")
    with pytest.raises(FileError, match="not a published snapshot"):
        evaluate.run(options)


def test_a_set_of_ones_own_is_scored_on_the_joints_that_both_name(toys: ToyBenchmark) -> None:
    ready = build_benchmark(toys.source, PROTOCOLS["Custom"], toys.body, GRID, toys.source.folder)
    assert ready.scorer is not None
    assert ready.joints == tuple(joint for joint in toys.body.skeleton.joints if joint != "Pelvis")
    found, _ = evaluate.evaluate(KnownNetwork(toys.lixels, GRID), toys.body, ready, ("lixel",))
    assert {metric.points for metric in found.metrics} == {"joints"}
    assert found.mean("lixel", "mpjpe") < MILLIMETRES
