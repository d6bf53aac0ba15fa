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

_OPERATIONS = (
    *("_convolution_pointwise", "_convolution_transpose_pointwise", "_linear_pointwise"),
    *("_reorder_convolution_weight", "_reorder_convolution_transpose_weight", "_reorder_linear_weight"),
)
_WIDE = 1024
"""Channels from which a transposed convolution is quicker as a matrix product."""


def available() -> bool:
    """Whether this PyTorch has oneDNN and the calls."""
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in _OPERATIONS)


def has_half() -> bool:
    """Whether this processor computes in float16 by these calls."""
    told = getattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", None)
    return available() and told is not None and told()


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
            kind = _Convolution if isinstance(layer, nn.Conv2d) else _transposed_as(layer)
            setattr(sequence, name, kind(cast(Any, layer), "relu"))
            setattr(sequence, following, nn.Identity())


def pack_products(part: nn.Module) -> None:
    """Replaces the linear layers of a part on the CPU, in place; otherwise as `pack`."""
    for parent in [*part.modules()]:
        for name, layer in [*parent.named_children()]:
            if isinstance(layer, nn.Linear):
                packed = _Product(layer.weight.detach(), None if layer.bias is None else layer.bias.detach())
                # Conversions from and to half precision hang on the layer.
                packed._forward_pre_hooks, packed._forward_hooks = layer._forward_pre_hooks, layer._forward_hooks
                setattr(parent, name, packed)


def _transposed_as(layer: nn.ConvTranspose2d) -> "type[_TransposedProduct | _TransposedConvolution]":
    doubling = (layer.kernel_size, layer.stride, layer.padding) == ((4, 4), (2, 2), (1, 1))
    plain = layer.groups == 1 and layer.dilation == (1, 1) and layer.output_padding == (0, 0)
    return _TransposedProduct if doubling and plain and layer.in_channels >= _WIDE else _TransposedConvolution


class _Product(nn.Module):
    """A matrix product."""

    def __init__(self, weight: Float[Tensor, "d c"], bias: Float[Tensor, "d"] | None) -> None:
        super().__init__()
        self.bias = bias
        self.plain: Tensor | None = weight
        self.packed: Tensor | None = None

    def forward(self, x: Float[Tensor, "n c"]) -> Float[Tensor, "n d"]:
        weight = _packed(self, lambda plain: torch.ops.mkldnn._reorder_linear_weight(plain, len(x)))
        return torch.ops.mkldnn._linear_pointwise(x, weight, self.bias, "none", [], "")


class _TransposedProduct(nn.Module):
    """A transposed convolution that doubles the sides, and ReLU: one product for all that pixels give, then the sums.

    From many channels on few pixels it takes half of the time that oneDNN's own transposed convolution takes, in half
    precision a quarter.
    """

    def __init__(self, layer: nn.ConvTranspose2d, activation: str) -> None:
        """activation: "relu"."""
        super().__init__()
        assert activation == "relu"
        self.channels = layer.out_channels
        bias = layer.bias
        self.bias = layer.weight.new_zeros(self.channels) if bias is None else bias.detach()
        # Rows in the order of (kernel row, kernel column, channel).
        rows = layer.weight.detach().permute(2, 3, 1, 0).reshape(-1, layer.in_channels)
        self.product = _Product(rows.contiguous(), None)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        batch, _, height, width = x.shape
        given = self.product(x.permute(0, 2, 3, 1).reshape(batch * height * width, -1))
        # Kernel row 2 a + p of input row i meets row 2 (i + a) + p of the output with a border of one pixel.
        given = given.view(batch, height, width, 2, 2, 2, 2, self.channels)
        sums = given.new_zeros(batch, height + 1, 2, width + 1, 2, self.channels)
        for a in (0, 1):
            for b in (0, 1):
                sums[:, a : a + height, :, b : b + width] += given[:, :, :, a, :, b].transpose(2, 3)
        whole = sums.view(batch, 2 * height + 2, 2 * width + 2, self.channels)
        return (whole[:, 1:-1, 1:-1] + self.bias).relu_().permute(0, 3, 1, 2)


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
        reorder = torch.ops.mkldnn._reorder_convolution_weight
        weight = _packed(self, lambda plain: reorder(plain, *self.steps, list(x.shape)))
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
        reorder = torch.ops.mkldnn._reorder_convolution_transpose_weight
        weight = _packed(self, lambda plain: reorder(plain, *self.steps, list(x.shape)))
        convolve = torch.ops.mkldnn._convolution_transpose_pointwise
        return convolve(x, weight, self.bias, *self.steps, self.activation, [], "")


def _packed(layer: _Convolution | _TransposedConvolution | _Product, reorder: Callable[[Tensor], Tensor]) -> Tensor:
    """The layer's weight as oneDNN wants it for inputs like the first; the plain one is let go.

    Without the input's size oneDNN would guess, and lay the weight out anew at each call where it guessed wrong.
    """
    if layer.packed is None:
        plain = layer.plain
        if plain is None:  # another thread was a moment quicker
            return cast(Tensor, layer.packed)
        layer.packed = reorder(plain)
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
