"""A network made ready for use answers as before: to rounding in fp32, to some millimetres in half precision."""

import copy

import pytest
import torch
from torch import nn

from i2l_meshnet.bodies import Body, load_body
from i2l_meshnet.errors import InputError
from i2l_meshnet.models import assembly, onednn
from i2l_meshnet.models.backbone import BasicBlock, Bottleneck
from i2l_meshnet.models.inference import Precision, for_inference
from i2l_meshnet.models.loading import default_weights, load_network
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.rtmpose import ConvSiLU


@pytest.fixture(scope="module")
def toy() -> Body:
    return load_body("toy")


@pytest.fixture(scope="module")
def network(toy: Body) -> MeshNet:
    """ResNet-18 with statistics and factors that folding has to reckon with."""
    torch.manual_seed(0)
    network = assembly.build(assembly.published_config(toy, "resnet18"), toy).eval()
    for part in network.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.7, 1.3)
            nn.init.normal_(part.bias, std=0.1)
            nn.init.normal_(part.running_mean, std=0.1)  # type: ignore[arg-type]
            nn.init.uniform_(part.running_var, 0.7, 1.3)  # type: ignore[arg-type]
        if isinstance(part, nn.ConvTranspose2d):
            nn.init.normal_(part.weight, std=0.02)
    return network


@torch.no_grad()
def test_folding_changes_rounding_only(network: MeshNet) -> None:
    image = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    ready, wanted = for_inference(network), network(image)
    assert not any(isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) for part in ready.modules())
    assert any(isinstance(part, nn.BatchNorm2d) for part in network.modules())
    found = ready(image)
    # 1e-3 lixels are 0.03 mm of the box of 2 m.
    torch.testing.assert_close(found.vertices, wanted.vertices, atol=1e-3, rtol=0)
    torch.testing.assert_close(found.joints, wanted.joints, atol=1e-3, rtol=0)
    assert wanted.params is not None
    assert found.params is not None
    torch.testing.assert_close(found.params.pose, wanted.params.pose, atol=1e-4, rtol=0)
    assert float((wanted.vertices - wanted.vertices.mean(1, keepdim=True)).abs().max()) > 0.1


def require_half(precision: Precision) -> None:
    if precision == "fp16" and not onednn.has_half():
        pytest.skip("this processor does not compute in fp16")


@torch.no_grad()
@pytest.mark.parametrize(("precision", "most"), [("bf16", 0.5), ("fp16", 0.1)])
def test_half_precision_stays_near_and_gives_single(network: MeshNet, precision: Precision, most: float) -> None:
    require_half(precision)
    image = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    found, wanted = for_inference(network, precision)(image), network(image)
    assert found.vertices.dtype == found.joints.dtype == torch.float32
    difference = (found.vertices - wanted.vertices).abs().max()
    assert 0 < float(difference) < most


def test_fp16_is_refused_where_the_processor_has_it_not(network: MeshNet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "has_half", lambda: False)
    with pytest.raises(InputError, match="does not compute in fp16"):
        for_inference(network, "fp16")


@torch.no_grad()
def test_the_default_network_is_made_ready_too() -> None:
    network, _, _ = load_network(default_weights())
    image = torch.rand(1, 3, *network.grid.crop_size, generator=torch.Generator().manual_seed(2))
    found, wanted = for_inference(network)(image), network(image)
    torch.testing.assert_close(found.vertices, wanted.vertices, atol=1e-3, rtol=0)
    assert found.keypoints is not None
    for precision in ("bf16", "fp16"):
        with pytest.raises(InputError, match=f"{precision} is not offered"):
            for_inference(network, precision)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_packing_changes_rounding_only(network: MeshNet, precision: Precision) -> None:
    if not onednn.available():
        pytest.skip("a PyTorch without oneDNN")
    require_half(precision)
    image = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    packed, plain = (for_inference(network, precision, pack=pack) for pack in (True, False))
    assert sum(isinstance(part, nn.Conv2d) for part in packed.modules()) == 1  # pose to feature reads its weight
    assert not any(isinstance(part, nn.Linear) for part in packed.pose_net.modules())
    with torch.no_grad():
        found, wanted = packed(image), plain(image)
    torch.testing.assert_close(found.joints, wanted.joints, atol=1e-3, rtol=0)
    torch.testing.assert_close(found.vertices, wanted.vertices, atol=0.1, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("part", [Bottleneck(8, 4, 2), BasicBlock(8, 8, 1), ConvSiLU(8, 8, 5, groups=8)])
def test_packed_parts_answer_for_any_size(part: nn.Module) -> None:
    if not onednn.available():
        pytest.skip("a PyTorch without oneDNN")
    plain = for_block(part)
    packed = copy.deepcopy(plain)
    onednn.pack(packed)
    for size in ((1, 8, 16, 16), (3, 8, 10, 6)):
        image = torch.randn(size, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(packed(image), plain(image), atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("bias", [False, True])
def test_a_wide_transposed_convolution_is_a_product(bias: bool) -> None:
    if not onednn.available():
        pytest.skip("a PyTorch without oneDNN")
    torch.manual_seed(0)
    plain = nn.Sequential(nn.ConvTranspose2d(1024, 6, 4, 2, 1, bias=bias), nn.Identity(), nn.ReLU()).eval()
    packed = copy.deepcopy(plain)
    onednn.pack(packed)
    assert not any(isinstance(part, nn.ConvTranspose2d) for part in packed.modules())
    assert any(isinstance(part, onednn._TransposedProduct) for part in packed.modules())
    for size in ((1, 1024, 8, 8), (3, 1024, 5, 2)):
        image = torch.randn(size).contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(packed(image), plain(image), atol=1e-4, rtol=1e-4)


def for_block(part: nn.Module) -> nn.Module:
    """The part with identities for BatchNorm, as after folding."""
    part = copy.deepcopy(part).eval()
    for parent in [*part.modules()]:
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.Identity())
    return part
