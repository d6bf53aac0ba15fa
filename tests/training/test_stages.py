"""The two stages: what trains, what rests, and that a perfect answer has no error."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_training import slim_networks

from i2l_meshnet.bodies import load_body
from i2l_meshnet.data.dataset import PersonDataset, Sample, collate
from i2l_meshnet.data.sources.toy import toy_source
from i2l_meshnet.data.targets import TargetBuilder
from i2l_meshnet.models import assembly
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.output import LixelOutput
from i2l_meshnet.recipes import RECIPES
from i2l_meshnet.training import train as training
from i2l_meshnet.training.data import ErrorMeasure, network_config
from i2l_meshnet.training.losses import PUBLISHED_HAND_UNIT
from i2l_meshnet.training.stages import LixelStage, ParamStage, Stage, joint_error

RECIPE = dataclasses.replace(RECIPES["tiny"][1], crop=32)
BODY = load_body("toy")
CONFIG = network_config(RECIPE, BODY)


@pytest.fixture(scope="module", autouse=True)
def slim() -> Iterator[None]:
    with slim_networks():
        yield


@pytest.fixture
def network() -> MeshNet:
    torch.manual_seed(0)
    return assembly.build(CONFIG, BODY)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    source = toy_source(tmp_path_factory.mktemp("toy"), 3)
    dataset = PersonDataset(source, crop_size=CONFIG.grid.crop_size)
    return collate([dataset[i] for i in range(len(dataset))])


@pytest.fixture(scope="module")
def targets(sample: Sample) -> TargetBuilder:
    return TargetBuilder([BODY], CONFIG.grid, BODY.skeleton)


def train(network: MeshNet, stage: Stage, sample: Sample, targets: TargetBuilder) -> set[str]:
    """Takes one step; names of the tensors that changed."""
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.Adam(stage.prepare(network), 1e-2)
    stage.train_mode(network)
    torch.stack(list(stage.losses(network(sample.network_input()), targets(sample)).values())).sum().backward()
    optimizer.step()
    return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}


def test_lixel_stage_trains_all_but_the_regressor(network: MeshNet, sample: Sample, targets: TargetBuilder) -> None:
    changed = train(network, LixelStage(BODY), sample, targets)
    rest = {name for name in network.state_dict() if name.startswith("parameter_regressor.")}
    assert rest
    assert changed == network.state_dict().keys() - rest


@pytest.mark.parametrize("drifts", [False, True])
def test_parameter_stage_trains_the_regressor(
    network: MeshNet, sample: Sample, targets: TargetBuilder, drifts: bool
) -> None:
    changed = train(network, ParamStage(BODY, batchnorm_drifts=drifts), sample, targets)
    own = {name for name in changed if name.startswith("parameter_regressor.")}
    assert {name.split(".")[1] for name in own} == {"fc", "fc_pose", "fc_shape"}
    statistics = {name for name in network.state_dict() if "running_" in name or "num_batches" in name}
    assert changed - own == ({name for name in statistics if name not in own} if drifts else set())


def test_parameter_stage_can_follow_on_the_lixel_stage(
    network: MeshNet, sample: Sample, targets: TargetBuilder
) -> None:
    train(network, LixelStage(BODY), sample, targets)
    network.zero_grad()
    assert all(name.startswith("parameter_regressor.") for name in train(network, ParamStage(BODY), sample, targets))


def perfect(sample: Sample, targets: TargetBuilder) -> LixelOutput:
    """What a network without error would answer."""
    target = targets(sample)
    vertices = target.fit_vertices.points
    return LixelOutput(target.fit_joints.points, vertices, BODY.joint_regressor @ vertices, target.params)


@pytest.mark.parametrize("stage", [LixelStage(BODY), ParamStage(BODY)], ids=["lixel", "param"])
def test_perfect_answer_has_no_error(network: MeshNet, sample: Sample, targets: TargetBuilder, stage: Stage) -> None:
    output = perfect(sample, targets)
    mesh = stage.mesh(network, output, sample)
    error, weight = joint_error(stage, mesh, targets(sample))
    # Joints between perspective lixels are not quite the lixels of the joints between.
    assert error.max() < 5
    assert weight.tolist() == [1, 1, 1]
    _, vertices, _ = targets.meshes(sample)
    torch.testing.assert_close(mesh.vertices, vertices, rtol=0, atol=1e-4 if stage.name == "lixel" else 0.03)
    losses = stage.losses(output, targets(sample))
    exact = ("mesh_fit", "joint_fit", "mesh_edge", "pose_param", "shape_param", "joint_fit_cam")
    assert all(losses[name] < 1e-4 for name in exact if name in losses)
    assert len(losses) == {"lixel": 7, "param": 4}[stage.name]


def test_error_is_in_millimetres_and_root_relative(network: MeshNet, sample: Sample, targets: TargetBuilder) -> None:
    stage = ParamStage(BODY)
    mesh = stage.mesh(network, perfect(sample, targets), sample)
    moved = dataclasses.replace(mesh, joints=mesh.joints + 0.5)
    joints = mesh.joints.clone()
    joints[:, BODY.skeleton.index("Head"), 0] += 0.016 * len(BODY.skeleton)
    one_off = dataclasses.replace(mesh, joints=joints)
    target = targets(sample)
    error = [joint_error(stage, found, target)[0] for found in (mesh, moved, one_off)]
    torch.testing.assert_close(error[1], error[0], rtol=0, atol=1e-2)
    torch.testing.assert_close(error[2] - error[0], torch.full((3,), 16.0), rtol=0, atol=0.5)


def test_samples_without_depth_count_nothing(network: MeshNet, sample: Sample, targets: TargetBuilder) -> None:
    fit = dataclasses.replace(sample.annotation.fit, known=torch.tensor([True, False, False]))
    annotation = dataclasses.replace(sample.annotation, fit=fit, has_depth=torch.tensor([False, False, True]))
    flat = dataclasses.replace(sample, annotation=annotation)
    stage = LixelStage(BODY)
    error, weight = joint_error(stage, stage.mesh(network, perfect(sample, targets), sample), targets(flat))
    assert weight.tolist() == [1, 0, 1]
    assert error.isfinite().all()


def test_pictures_without_depth_are_measured_where_their_fits_stand(
    network: MeshNet, sample: Sample, targets: TargetBuilder
) -> None:
    """COCO knows no depth of the root, and a mesh at another depth has another size."""
    unknown = torch.full((3,), torch.nan)
    flat = dataclasses.replace(sample, annotation=dataclasses.replace(sample.annotation, root_depth=unknown))
    measure = ErrorMeasure(LixelStage(BODY), network, targets)
    (error, weight), (expected, _) = (measure(perfect(sample, targets), given) for given in (flat, sample))
    torch.testing.assert_close(error, expected, rtol=0, atol=0.1)
    assert weight.tolist() == [1, 1, 1]


def test_hand_joints_in_millimetres_are_a_parity_switch(
    network: MeshNet, sample: Sample, targets: TargetBuilder
) -> None:
    output, target = network.eval()(sample.network_input()), targets(sample)
    metres = ParamStage(BODY).losses(output, target)
    recipe = dataclasses.replace(RECIPE, stage="param", parity=("hand-millimetres",))
    millimetres = training.make_stage(recipe, BODY).losses(output, target)
    for name, value in metres.items():
        factor = PUBLISHED_HAND_UNIT if name.endswith("_cam") else 1
        torch.testing.assert_close(millimetres[name], factor * value)


def test_network_without_regressor_has_no_parameter_stage(tmp_path: Path, network: MeshNet) -> None:
    network.parameter_regressor = None
    with pytest.raises(ValueError, match="no parameter stage"):
        ParamStage(BODY).prepare(network)
