"""`for_inference` changes outputs by rounding in float32, and by some millimetres in half precision."""

import pytest
import torch
from torch import nn

from i2l_meshnet.bodies import Body, load_body
from i2l_meshnet.errors import InputError
from i2l_meshnet.models import assembly, inference
from i2l_meshnet.models.inference import for_inference
from i2l_meshnet.models.loading import load_network, shipped_weights
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.precision import Precision, supported_precisions


@pytest.fixture(scope="module")
def toy() -> Body:
    return load_body("toy")


@pytest.fixture(scope="module")
def network(toy: Body) -> MeshNet:
    """A ResNet-18 network with random BatchNorm statistics and factors."""
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


@torch.no_grad()
@pytest.mark.parametrize(("precision", "limit"), [("bf16", 0.5), ("fp16", 0.1)])
def test_half_precision_is_close_or_raises_an_error(network: MeshNet, precision: Precision, limit: float) -> None:
    """Outputs are float32 and close if the processor supports the precision; otherwise an error is raised."""
    if precision not in supported_precisions():
        with pytest.raises(InputError, match=precision):
            for_inference(network, precision)
        return
    image = torch.rand(2, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    found, wanted = for_inference(network, precision)(image), network(image)
    assert found.vertices.dtype == found.joints.dtype == torch.float32
    difference = (found.vertices - wanted.vertices).abs().max()
    assert 0 < float(difference) < limit


@torch.no_grad()
def test_the_default_network_supports_float32_only(monkeypatch: pytest.MonkeyPatch) -> None:
    network, _, _ = load_network(shipped_weights())
    image = torch.rand(1, 3, *network.grid.crop_size, generator=torch.Generator().manual_seed(2))
    found, wanted = for_inference(network)(image), network(image)
    torch.testing.assert_close(found.vertices, wanted.vertices, atol=1e-3, rtol=0)
    assert found.keypoints is not None
    monkeypatch.setattr(inference, "require_precision", lambda *_: None)  # as on a processor that supports both
    for precision in ("bf16", "fp16"):
        with pytest.raises(InputError) as caught:
            for_inference(network, precision)
        assert caught.value.argument == "precision"
