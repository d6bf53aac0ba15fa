"""A network made ready for use: the same answers from fewer and faster operations."""

import copy
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from i2l_meshnet.models.backbone import ResNet, ResNetStages
from i2l_meshnet.models.lixel_head import LixelHead
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.rtmpose import CSPNeXt

Precision = Literal["fp32", "bf16"]
BATCHNORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def for_inference(network: MeshNet, precision: Precision = "fp32") -> MeshNet:
    """A copy of a network in evaluation mode that cannot be trained any more.

    BatchNorm is folded into the layers before it, which changes rounding only, and maps lie with their channels last,
    as processors like them. "bf16": the backbones and the lixel heads' transposed convolutions work in bfloat16; what
    the soft-argmax reads stays in float32, where half the bits of a logit would not be enough.
    """
    network = folded(network)
    network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if precision == "bf16":
        for part in [*network.modules()]:
            if isinstance(part, ResNet | ResNetStages | CSPNeXt):
                _halve(part)
            elif isinstance(part, LixelHead):
                _halve(part.deconv)
    return network


def folded(network: MeshNet) -> MeshNet:
    """A copy of a network in evaluation mode, BatchNorm folded into the layers before it, that cannot be trained."""
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for parent, before, norm in [*_foldable(network)]:
        layer, batchnorm = getattr(parent, before), getattr(parent, norm)
        if isinstance(layer, nn.Linear):
            setattr(parent, before, fuse_linear_bn_eval(layer, batchnorm))
        else:
            setattr(parent, before, fuse_conv_bn_eval(layer, batchnorm, isinstance(layer, nn.ConvTranspose2d)))
        setattr(parent, norm, nn.Identity())
    return network


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
