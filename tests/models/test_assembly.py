"""The published network: assembly, description, freezing."""

import dataclasses

import pytest
import torch

from i2l_meshnet.bodies import load_body
from i2l_meshnet.errors import InputError
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.models import assembly
from i2l_meshnet.models.backbone import RESNET_NAMES, ResNet, ResNetName, ResNetStages
from i2l_meshnet.models.config import LiftingSizes, NetworkConfig
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.reference import plain_copy

BODY = load_body("toy")


def small(backbone: str = "resnet18") -> MeshNet:
    torch.manual_seed(0)
    return assembly.build(assembly.published_config(BODY, backbone), BODY).eval()


def test_output_and_gradients_are_those_of_the_published_formulation() -> None:
    """In float64, in which both formulations agree to the last digits on every processor; with small crops."""
    torch.manual_seed(0)
    config = assembly.published_config(BODY, "resnet18")
    grid = dataclasses.replace(config.grid, shape=(16, 16, 16), crop_size=(64, 64))
    network = assembly.build(dataclasses.replace(config, grid=grid), BODY).eval().double()
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients, outputs = [], []
    for each in (network, plain_copy(network)):
        output = each(image)
        (output.vertices.square().mean() + output.joints.mean()).backward()
        gradients.append([parameter.grad for parameter in each.parameters()])
        outputs.append(output)
    for ours, theirs in zip(*gradients, strict=True):
        if ours is not None:
            torch.testing.assert_close(ours, theirs, atol=1e-9 * float(theirs.abs().max()), rtol=1e-6)
    torch.testing.assert_close(outputs[0].joints, outputs[1].joints, atol=1e-10, rtol=0)
    torch.testing.assert_close(outputs[0].vertices, outputs[1].vertices, atol=1e-10, rtol=0)


def test_initialisation_is_the_published_one() -> None:
    state = small().state_dict()
    assert state["pose_net.head.deconv.0.weight"].std() == pytest.approx(0.001, rel=0.02)
    assert state["pose_to_feature.conv.0.weight"].std() == pytest.approx(0.001, rel=0.02)
    assert not state["pose_to_feature.conv.0.bias"].any()
    assert state["parameter_regressor.fc.3.weight"].std() == pytest.approx(0.01, rel=0.02)
    assert not state["parameter_regressor.fc.0.bias"].any()
    assert (state["mesh_branch.head.deconv.1.weight"] == 1).all()
    # PyTorch's default of Conv1d: uniform within 1 / sqrt(fan in).
    assert state["mesh_branch.head.conv_x.0.weight"].abs().max() <= 256**-0.5
    assert state["mesh_branch.head.conv_x.0.weight"].std() > 0.02


@pytest.mark.parametrize("name", RESNET_NAMES)
def test_every_resnet_has_its_size_and_strides(name: ResNetName) -> None:
    parameters = {"resnet18": 11.2, "resnet34": 21.3, "resnet50": 23.5, "resnet101": 42.5, "resnet152": 58.1}
    net = ResNet(name)
    assert sum(parameter.numel() for parameter in net.parameters()) / 1e6 == pytest.approx(parameters[name], abs=0.05)
    with torch.no_grad():
        early, deep = net.eval()(torch.rand(1, 3, 64, 64))
        assert early.shape == (1, 64, 16, 16)
        assert deep.shape == (1, net.deep_channels, 2, 2)
        stages = ResNetStages(name).eval()
        assert stages.state_dict().keys() == {key for key in net.state_dict() if key.startswith("layer")}
        assert stages(early).shape == deep.shape


@pytest.mark.parametrize("drifts", [False, True])
def test_only_the_regressor_trains_when_the_rest_is_frozen(drifts: bool) -> None:
    """With `batchnorm_drifts`, the BatchNorm statistics of the frozen parts change too, as in the published code."""
    network = small()
    network.freeze_lixel_parts(batchnorm_drifts=drifts)
    network.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    output = network(torch.rand(2, 3, 256, 256))
    assert output.params is not None
    output.params.shape.sum().backward()
    trained = {key.split(".")[0] for key, parameter in network.named_parameters() if parameter.grad is not None}
    assert trained == {"parameter_regressor"}
    moved = {key.split(".")[0] for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    frozen = {"pose_net", "pose_to_feature", "mesh_branch"}
    assert moved == ({"parameter_regressor"} | frozen if drifts else {"parameter_regressor"})


def test_another_body_and_unknown_names_raise_an_error() -> None:
    config = assembly.published_config(BODY, "resnet18")
    for wrong in (
        NetworkConfig("published", "resnet18", "smpl", ("Pelvis",), 6890, 24, 10),
        dataclasses.replace(config, backbone="resnet19"),
        dataclasses.replace(config, kind="unpublished"),
    ):
        with pytest.raises(InputError):
            assembly.build(wrong, BODY)


@pytest.mark.parametrize(
    "sizes", [None, LiftingSizes(3, 1, 2, 2, 4, 2, 2), LiftingSizes(3, 1, 2, 2, 4, 2, 2, fit=True)]
)
def test_a_description_is_the_same_after_json(sizes: LiftingSizes | None) -> None:
    config = NetworkConfig.for_body(BODY, "keypoint", "resnet18", LixelGrid(depth_extent=0.3), sizes)
    assert NetworkConfig.from_json(config.to_json()) == config
