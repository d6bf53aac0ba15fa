"""Optimise a network for inference: the same outputs with fewer and faster operations."""

import copy
from collections.abc import Iterator
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from i2l_meshnet.errors import InputError
from i2l_meshnet.models.backbone import ResNet, ResNetStages
from i2l_meshnet.models.lixel_head import LixelHead
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.rtmpose import CSPNeXt
from i2l_meshnet.precision import DTYPES, Precision, require_precision

BATCHNORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def for_inference(network: MeshNet, precision: Precision = "fp32", device: torch.device | str = "cpu") -> MeshNet:
    """Return a copy of a network on `device`, in eval mode. The copy cannot be trained or saved.

    BatchNorm is folded into the layer before it, which changes rounding only. Tensors are channels-last, which is the
    fastest layout for convolutions.

    "bf16": the mesh branch's backbone and the lixel heads' transposed convolutions run in bfloat16. The inputs of the
    soft-argmax stay in float32, because logits need the precision. The pose net's backbone stays in float32 too: its
    rounding errors would move the mesh by centimetres (docs/performance.md). "fp16": that backbone and the layers that
    compute the z heatmaps run in float16 as well, which has eight times the resolution of bfloat16.

    Raises InputError if the device does not support the precision (`precision.supported_precisions`), and for half
    precision with a network that lifts keypoints.
    """
    device = torch.device(device)
    require_precision(precision, device)
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for parent, before, norm in [*_foldable(network)]:
        layer, batchnorm = getattr(parent, before), getattr(parent, norm)
        if isinstance(layer, nn.Linear):
            setattr(parent, before, fuse_linear_bn_eval(layer, batchnorm))
        else:
            setattr(parent, before, fuse_conv_bn_eval(layer, batchnorm, isinstance(layer, nn.ConvTranspose2d)))
        setattr(parent, norm, nn.Identity())
    heads = [part for part in network.modules() if isinstance(part, LixelHead)]
    for head in heads:
        head.conv_z_1[0] = _OnOnePoint(cast(nn.Conv1d, head.conv_z_1[0]))
    network = network.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    backbones = [part for part in network.modules() if isinstance(part, ResNet | ResNetStages | CSPNeXt)]
    convolutional = [*backbones, *(head.deconv for head in heads)]
    spreading = [head.conv_z_1[0].get_submodule("product") for head in heads]
    if precision != "fp32":
        if any(isinstance(part, CSPNeXt) for part in backbones):
            raise InputError(
                f"networks that lift keypoints, such as the default network, do not support {precision}: it moves "
                "keypoints and the mesh by up to centimetres",
                argument="precision",
            )
        whole = precision == "fp16"
        for part in [*convolutional, *spreading] if whole else convolutional:
            if whole or not isinstance(part, ResNet):
                _halve(part, DTYPES[precision])
    return network


class _OnOnePoint(nn.Module):
    """A 1x1 convolution of one point as a matrix product, which reads the weights once for the whole batch."""

    def __init__(self, layer: nn.Conv1d) -> None:
        super().__init__()
        self.product = nn.Linear(layer.in_channels, layer.out_channels, layer.bias is not None, device="meta")
        self.product.weight = nn.Parameter(layer.weight.detach()[..., 0], requires_grad=False)
        if layer.bias is not None:
            self.product.bias = nn.Parameter(layer.bias.detach(), requires_grad=False)

    def forward(self, input: Float[Tensor, "b c 1"]) -> Float[Tensor, "b d 1"]:
        return self.product(input[..., 0])[..., None]


def _foldable(network: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """(parent, name of a layer, name of the BatchNorm after it): neighbours in a Sequential, or conv1 and bn1."""
    for parent in network.modules():
        names = [name for name, _ in parent.named_children()]
        for name in names:
            before = str(int(name) - 1) if isinstance(parent, nn.Sequential) else name.replace("bn", "conv")
            if isinstance(getattr(parent, name), BATCHNORMS) and before in names:
                yield parent, before, name


def _halve(part: nn.Module, dtype: torch.dtype) -> None:
    """Run a module in half precision, with float32 inputs and outputs."""

    def narrow(part: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(value.to(dtype) for value in inputs)

    def widen(part: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> Any:
        return output.float() if isinstance(output, Tensor) else tuple(value.float() for value in output)

    part.to(dtype)
    part.register_forward_pre_hook(narrow)
    part.register_forward_hook(widen)
