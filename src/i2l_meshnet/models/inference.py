"""A network made ready for use: the same answers from fewer and faster operations."""

import copy
from collections.abc import Iterator
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from i2l_meshnet.errors import InputError
from i2l_meshnet.models import onednn
from i2l_meshnet.models.backbone import ResNet, ResNetStages
from i2l_meshnet.models.lixel_head import LixelHead
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.rtmpose import CSPNeXt, SimCCHead

Precision = Literal["fp32", "bf16"]
BATCHNORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def for_inference(
    network: MeshNet, precision: Precision = "fp32", device: torch.device | str = "cpu", pack: bool = True
) -> MeshNet:
    """A copy of a network on `device` in evaluation mode that cannot be trained or saved any more.

    BatchNorm is folded into the layers before it, which changes rounding only, and maps lie with their channels last,
    as processors like them. On the CPU convolutions are packed (`onednn`); pack: False leaves them as they are, for
    what reads or compiles them.

    "bf16": the mesh branch's backbone and the lixel heads' transposed convolutions work in bfloat16. What the
    soft-argmax reads stays in float32, where half the bits of a logit would not be enough, and so does the pose net's
    backbone, whose early map and joints carry its rounding on into the mesh: that would cost centimetres
    (docs/performance.md). Raises InputError for "bf16" with a network whose mesh comes from keypoints alone.
    """
    device = torch.device(device)
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
    if precision == "bf16":
        halved = [part for part in convolutional if not isinstance(part, ResNet)]
        if any(isinstance(part, CSPNeXt) for part in halved):
            raise InputError(
                "bf16 is not offered for networks that lift keypoints, such as the default one: it moves keypoints by "
                "half a pixel and the mesh by centimetres; leave out --precision"
            )
        for part in halved:
            _halve(part)
    if pack and device.type == "cpu" and onednn.available():
        for part in [*convolutional, *(part for part in network.modules() if isinstance(part, SimCCHead))]:
            onednn.pack(part)
    return network


class _OnOnePoint(nn.Linear):
    """A 1x1 convolution of a line of one point: a matrix product, which reads its weight once for the whole batch."""

    def __init__(self, layer: nn.Conv1d) -> None:
        super().__init__(layer.in_channels, layer.out_channels, device="meta")
        self.weight = nn.Parameter(layer.weight.detach()[..., 0], requires_grad=False)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.detach(), requires_grad=False)

    def forward(self, input: Float[Tensor, "b c 1"]) -> Float[Tensor, "b d 1"]:
        return super().forward(input[..., 0])[..., None]


def _foldable(network: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """(parent, name of a layer, name of the BatchNorm that follows it): neighbours in a sequence, or conv1 and bn1."""
    for parent in network.modules():
        names = [name for name, _ in parent.named_children()]
        for name in names:
            before = str(int(name) - 1) if isinstance(parent, nn.Sequential) else name.replace("bn", "conv")
            if isinstance(getattr(parent, name), BATCHNORMS) and before in names:
                yield parent, before, name


def _halve(part: nn.Module) -> None:
    """Makes a part of convolutions work in bfloat16 between a float32 input and float32 outputs."""

    def narrow(part: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(value.bfloat16() for value in inputs)

    def widen(part: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> Any:
        return output.float() if isinstance(output, Tensor) else tuple(value.float() for value in output)

    part.to(torch.bfloat16)
    part.register_forward_pre_hook(narrow)
    part.register_forward_hook(widen)
