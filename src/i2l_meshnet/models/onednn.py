"""Convolutions with their activation in one call of oneDNN, weights laid out for it once: networks on the processor.

In eager mode PyTorch lays weights out anew at each call, which for one picture in bfloat16 is half of the work, and
activations and residual sums are passes of their own through memory. The calls here are those that torch.compile makes
for the processor, without a compiler and the minute that it takes.
"""

import itertools
from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from i2l_meshnet.models import rtmpose
from i2l_meshnet.models.backbone import BasicBlock, Bottleneck

_OPERATIONS = ("_convolution_pointwise", "_convolution_transpose_pointwise", "_reorder_convolution_weight")


def available() -> bool:
    """Whether this PyTorch has oneDNN and the calls."""
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in _OPERATIONS)


def pack(convolutions: nn.Module) -> None:
    """Replaces the convolutions of a part of a network on the CPU, in place; for inference only from then on.

    Changes rounding only. BatchNorm should be folded before. Packed weights are in no state dict, nor can they be
    copied or read: for parts that only call their convolutions.
    """
    for part in [*convolutions.modules()]:
        if isinstance(part, BasicBlock | Bottleneck | rtmpose.ConvSiLU):
            part.__class__ = _PACKED[type(part)]  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(part, nn.Sequential):
            _pack_sequence(part)
    for part in [*convolutions.modules()]:
        for name, layer in [*part.named_children()]:
            if isinstance(layer, nn.Conv2d):
                setattr(part, name, _Convolution(layer, _activation(part, name)))


def _activation(part: nn.Module, name: str) -> str:
    """The activation that follows a layer of a part, as oneDNN names it."""
    if isinstance(part, rtmpose.ConvSiLU):
        return "swish"
    if isinstance(part, BasicBlock | Bottleneck):
        return "relu"
    return "none"


def _pack_sequence(sequence: nn.Sequential) -> None:
    """Convolutions that are followed by ReLU, with nothing but identities between."""
    layers = [name for name, layer in sequence.named_children() if not isinstance(layer, nn.Identity)]
    for name, following in itertools.pairwise(layers):
        layer = sequence.get_submodule(name)
        if isinstance(sequence.get_submodule(following), nn.ReLU) and isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            kind = _Convolution if isinstance(layer, nn.Conv2d) else _TransposedConvolution
            setattr(sequence, name, kind(cast(Any, layer), "relu"))
            setattr(sequence, following, nn.Identity())


class _Convolution(nn.Module):
    """A convolution and an activation, and between them a residual sum where one is given."""

    def __init__(self, layer: nn.Conv2d, activation: str) -> None:
        super().__init__()
        self.activation = activation
        self.bias = None if layer.bias is None else layer.bias.detach()
        padding = cast(tuple[int, ...], layer.padding)
        self.steps = (list(padding), list(layer.stride), list(layer.dilation), layer.groups)
        self.plain: Tensor | None = layer.weight.detach()
        self.packed: Tensor | None = None

    def forward(self, x: Float[Tensor, "b c h w"], added: Float[Tensor, "b d h2 w2"] | None = None) -> Tensor:
        weight = _packed(self, x, torch.ops.mkldnn._reorder_convolution_weight)
        convolve = torch.ops.mkldnn._convolution_pointwise
        if added is None:
            return convolve(x, weight, self.bias, *self.steps, self.activation, [], "")
        return convolve(x, added, weight, self.bias, *self.steps, "add", 1.0, self.activation, [], "")


class _TransposedConvolution(nn.Module):
    """A transposed convolution and an activation."""

    def __init__(self, layer: nn.ConvTranspose2d, activation: str) -> None:
        super().__init__()
        self.activation = activation
        self.bias = None if layer.bias is None else layer.bias.detach()
        padding, added = (list(cast(tuple[int, ...], some)) for some in (layer.padding, layer.output_padding))
        self.steps = (padding, added, list(layer.stride), list(layer.dilation), layer.groups)
        self.plain: Tensor | None = layer.weight.detach()
        self.packed: Tensor | None = None

    def forward(self, x: Float[Tensor, "b c h w"]) -> Tensor:
        weight = _packed(self, x, torch.ops.mkldnn._reorder_convolution_transpose_weight)
        convolve = torch.ops.mkldnn._convolution_transpose_pointwise
        return convolve(x, weight, self.bias, *self.steps, self.activation, [], "")


def _packed(layer: _Convolution | _TransposedConvolution, x: Tensor, reorder: Callable[..., Tensor]) -> Tensor:
    """The layer's weight as oneDNN wants it for inputs like `x`, the first; the plain one is let go.

    Without the input's size oneDNN would guess, and lay the weight out anew at each call where it guessed wrong.
    """
    if layer.packed is None:
        plain = layer.plain
        if plain is None:  # another thread was a moment quicker
            return cast(Tensor, layer.packed)
        layer.packed = reorder(plain, *layer.steps, list(x.shape))
        layer.plain = None
    return layer.packed


class _PackedBasicBlock(BasicBlock):
    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.conv2(self.conv1(x), shortcut)


class _PackedBottleneck(Bottleneck):
    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.conv3(self.conv2(self.conv1(x)), shortcut)


class _PackedConvSiLU(rtmpose.ConvSiLU):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


_PACKED: dict[type[nn.Module], type[nn.Module]] = {
    BasicBlock: _PackedBasicBlock,
    Bottleneck: _PackedBottleneck,
    rtmpose.ConvSiLU: _PackedConvSiLU,
}
