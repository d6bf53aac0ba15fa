"""The two stages: what trains, and that a perfect prediction has no error."""

import dataclasses

import pytest
import torch

from i2l_meshnet.bodies import load_body
from i2l_meshnet.data.dataset import PersonDataset, Sample
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
TARGETS = TargetBuilder([BODY], CONFIG.grid, BODY.skeleton)


@pytest.fixture
def network() -> MeshNet:
    torch.manual_seed(0)
    return assembly.build(CONFIG, BODY)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    source = toy_source(tmp_path_factory.mktemp("toy"), 3)
    return PersonDataset(source, crop_size=CONFIG.grid.crop_size).batch(range(3))


@pytest.fixture
def perfect(sample: Sample) -> LixelOutput:
    """The output of a network without error."""
    target = TARGETS(sample)
    vertices = target.fit_vertices.points
    return LixelOutput(target.fit_joints.points, vertices, BODY.joint_regressor @ vertices, target.params)


def changed_by_a_step(network: MeshNet, stage: Stage, sample: Sample) -> set[str]:
    """Names of the tensors that a training step changes."""
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.Adam(stage.prepare(network), 1e-2)
    stage.train_mode(network)
    torch.stack(list(stage.losses(network(sample.network_input()), TARGETS(sample)).values())).sum().backward()
    optimizer.step()
    return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}


def test_lixel_stage_trains_all_but_the_regressor(network: MeshNet, sample: Sample) -> None:
    changed = changed_by_a_step(network, LixelStage(BODY), sample)
    rest = {name for name in network.state_dict() if name.startswith("parameter_regressor.")}
    assert rest
    assert changed == network.state_dict().keys() - rest


@pytest.mark.parametrize("drifts", [False, True])
def test_parameter_stage_trains_the_regressor(network: MeshNet, sample: Sample, drifts: bool) -> None:
    changed = changed_by_a_step(network, ParamStage(BODY, batchnorm_drifts=drifts), sample)
    own = {name for name in changed if name.startswith("parameter_regressor.")}
    assert {name.split(".")[1] for name in own} == {"fc", "fc_pose", "fc_shape"}
    statistics = {name for name in network.state_dict() if "running_" in name or "num_batches" in name}
    assert changed - own == ({name for name in statistics if name not in own} if drifts else set())


@pytest.mark.parametrize("stage", [LixelStage(BODY), ParamStage(BODY)], ids=["lixel", "param"])
def test_perfect_output_has_no_error(network: MeshNet, sample: Sample, perfect: LixelOutput, stage: Stage) -> None:
    mesh = stage.mesh(network, perfect, sample)
    error, weight = joint_error(stage, mesh, TARGETS(sample))
    # Joints between perspective lixels are not quite the lixels of the joints between.
    assert error.max() < 5
    assert weight.tolist() == [1, 1, 1]
    _, vertices, _ = TARGETS.meshes(sample)
    torch.testing.assert_close(mesh.vertices, vertices, rtol=0, atol=1e-4 if stage.name == "lixel" else 0.03)
    losses = stage.losses(perfect, TARGETS(sample))
    exact = ("mesh_fit", "joint_fit", "mesh_edge", "pose_param", "shape_param", "joint_fit_cam")
    assert all(losses[name] < 1e-4 for name in exact if name in losses)
    assert len(losses) == {"lixel": 7, "param": 4}[stage.name]


def test_error_is_in_millimetres_and_root_relative(network: MeshNet, sample: Sample, perfect: LixelOutput) -> None:
    stage = ParamStage(BODY)
    mesh = stage.mesh(network, perfect, sample)
    one_off = mesh.joints.clone()
    one_off[:, BODY.skeleton.index("Head"), 0] += 0.016 * len(BODY.skeleton)
    errors = [
        joint_error(stage, dataclasses.replace(mesh, joints=joints), TARGETS(sample))[0]
        for joints in (mesh.joints, mesh.joints + 0.5, one_off)
    ]
    torch.testing.assert_close(errors[1], errors[0], rtol=0, atol=1e-2)
    torch.testing.assert_close(errors[2] - errors[0], torch.full((3,), 16.0), rtol=0, atol=0.5)


def test_samples_without_depth_are_not_counted(network: MeshNet, sample: Sample, perfect: LixelOutput) -> None:
    fit = dataclasses.replace(sample.annotation.fit, known=torch.tensor([True, False, False]))
    annotation = dataclasses.replace(sample.annotation, fit=fit, has_depth=torch.tensor([False, False, True]))
    stage, flat = LixelStage(BODY), dataclasses.replace(sample, annotation=annotation)
    error, weight = joint_error(stage, stage.mesh(network, perfect, sample), TARGETS(flat))
    assert weight.tolist() == [1, 0, 1]
    assert error.isfinite().all()


def test_without_root_depths_meshes_are_measured_at_the_depth_of_their_fits(
    network: MeshNet, sample: Sample, perfect: LixelOutput
) -> None:
    """COCO has no root depths, and a mesh at another depth has another size."""
    unknown = torch.full((3,), torch.nan)
    flat = dataclasses.replace(sample, annotation=dataclasses.replace(sample.annotation, root_depth=unknown))
    measure = ErrorMeasure(LixelStage(BODY), network, TARGETS)
    (error, weight), (expected, _) = (measure(perfect, given) for given in (flat, sample))
    torch.testing.assert_close(error, expected, rtol=0, atol=0.1)
    assert weight.tolist() == [1, 1, 1]


def test_hand_joints_in_millimetres_are_a_parity_switch(network: MeshNet, sample: Sample) -> None:
    output, target = network.eval()(sample.network_input()), TARGETS(sample)
    metres = ParamStage(BODY).losses(output, target)
    recipe = dataclasses.replace(RECIPE, stage="param", parity=("hand-millimetres",))
    millimetres = training.make_stage(recipe, BODY).losses(output, target)
    for name, value in metres.items():
        factor = PUBLISHED_HAND_UNIT if name.endswith("_cam") else 1
        torch.testing.assert_close(millimetres[name], factor * value)
