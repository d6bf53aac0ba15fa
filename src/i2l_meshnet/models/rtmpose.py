"""RTMPose-s: 26 body keypoints of a person crop, in plain PyTorch (Jiang et al., arXiv:2303.07399).

CSPNeXt-s, a gated attention unit over the keypoints, and SimCC heads: two 1D heatmaps for each keypoint, with bins of
half a pixel. BatchNorm is folded into the convolutions, as in the exported file of the weights.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from i2l_meshnet.errors import InputError
from i2l_meshnet.io import reading

CROP_SIZE = (256, 192)
KEYPOINTS = 26
BINS_PER_PIXEL = 2
IMAGENET_MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
IMAGENET_STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)


class ConvSiLU(nn.Module):
    """Convolution of odd kernel size, same padding, then SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.conv(x))


class Bottleneck(nn.Module):
    """3x3 convolution, then a separable 5x5 one; optionally residual."""

    def __init__(self, channels: int, residual: bool) -> None:
        super().__init__()
        self.conv = ConvSiLU(channels, channels, 3)
        self.depthwise = ConvSiLU(channels, channels, 5, groups=channels)
        self.pointwise = ConvSiLU(channels, channels, 1)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = self.pointwise(self.depthwise(self.conv(x)))
        return x + y if self.residual else y


class ChannelAttention(nn.Module):
    """Scales each channel by a gate computed from the mean over the plane."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.gate(x.mean((2, 3), keepdim=True)))


class CrossStagePartial(nn.Module):
    """Bottlenecks on half of the channels, then channel attention and a 1x1 convolution of all channels."""

    def __init__(self, channels: int, blocks: int, residual: bool) -> None:
        super().__init__()
        half = channels // 2
        self.short = ConvSiLU(channels, half, 1)
        self.main = ConvSiLU(channels, half, 1)
        self.blocks = nn.Sequential(*(Bottleneck(half, residual) for _ in range(blocks)))
        self.attention = ChannelAttention(channels)
        self.final = ConvSiLU(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([self.blocks(self.main(x)), self.short(x)], 1)
        return self.final(self.attention(joined))


class SpatialPyramidPooling(nn.Module):
    """Concatenates the input with max pooling at three scales."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = ConvSiLU(channels, channels // 2, 1)
        self.expand = ConvSiLU(channels * 2, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        return self.expand(torch.cat([x, *(F.max_pool2d(x, k, 1, k // 2) for k in (5, 9, 13))], 1))


class CSPNeXt(nn.Module):
    """The backbone: (B,3,256,192) to (B,512,8,6)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvSiLU(3, 16, 3, 2), ConvSiLU(16, 16, 3), ConvSiLU(16, 32, 3))
        self.stage1 = nn.Sequential(ConvSiLU(32, 64, 3, 2), CrossStagePartial(64, 1, True))
        self.stage2 = nn.Sequential(ConvSiLU(64, 128, 3, 2), CrossStagePartial(128, 2, True))
        self.stage3 = nn.Sequential(ConvSiLU(128, 256, 3, 2), CrossStagePartial(256, 2, True))
        self.stage4 = nn.Sequential(
            ConvSiLU(256, 512, 3, 2), SpatialPyramidPooling(512), CrossStagePartial(512, 1, False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.stage4(self.stage3(self.stage2(self.stage1(self.stem(x)))))


class ScaleNorm(nn.Module):
    """Scales vectors of `size` values to a root mean square of 1, times a learned gain."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
        self.root = size**0.5

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.norm(dim=-1, keepdim=True) / self.root).clamp_min(1e-5) * self.gain


class GatedAttention(nn.Module):
    """Gated attention unit between the keypoints: squared-ReLU attention, gated values, scaled residual."""

    def __init__(self, size: int = 256, hidden: int = 512, key: int = 128) -> None:
        super().__init__()
        self.norm = ScaleNorm(size)
        self.expand = nn.Linear(size, 2 * hidden + key, bias=False)
        self.key_gain = nn.Parameter(torch.ones(2, key))
        self.key_shift = nn.Parameter(torch.zeros(2, key))
        self.reduce = nn.Linear(hidden, size, bias=False)
        self.residual_gain = nn.Parameter(torch.ones(size))
        self.sizes = (hidden, hidden, key)

    def forward(self, x: Tensor) -> Tensor:
        gate, value, base = F.silu(self.expand(self.norm(x))).split(self.sizes, -1)
        query, key = (base.unsqueeze(-2) * self.key_gain + self.key_shift).unbind(-2)
        attention = F.relu(query @ key.transpose(-1, -2) / self.sizes[2] ** 0.5).square()
        return self.residual_gain * x + self.reduce(gate * (attention @ value))


class SimCCHead(nn.Module):
    """Backbone features → 1D heatmaps (logits) of every keypoint along x and y."""

    def __init__(self) -> None:
        super().__init__()
        self.final = nn.Conv2d(512, KEYPOINTS, 7, 1, 3)
        self.norm = ScaleNorm(8 * 6)
        self.project = nn.Linear(8 * 6, 256, bias=False)
        self.attention = GatedAttention()
        self.x = nn.Linear(256, CROP_SIZE[1] * BINS_PER_PIXEL, bias=False)
        self.y = nn.Linear(256, CROP_SIZE[0] * BINS_PER_PIXEL, bias=False)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.attention(self.project(self.norm(self.final(feature).flatten(2))))
        return self.x(tokens), self.y(tokens)


class RTMPose(nn.Module):
    """26 keypoints (`skeletons.HALPE26`) of a person crop of exactly 256x192 (h x w) pixels."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.backbone = CSPNeXt()
        self.head = SimCCHead()
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)

    def heatmaps(
        self, image: Float[Tensor, "b 3 256 192"]
    ) -> tuple[Float[Tensor, "b 26 384"], Float[Tensor, "b 26 512"]]:
        """SimCC logits along x and y of an RGB crop in [0, 1]."""
        return self.head(self.backbone((image - self.mean) / self.std))

    def forward(self, image: Float[Tensor, "b 3 256 192"]) -> Float[Tensor, "b 26 3"]:
        """Keypoints (x, y in crop pixels, confidence in [0, 1]) of an RGB crop in [0, 1]."""
        return decode_simcc(*self.heatmaps(image))


def decode_simcc(x: Float[Tensor, "*b k w"], y: Float[Tensor, "*b k h"]) -> Float[Tensor, "*b k 3"]:
    """Decode SimCC logits to keypoints: x, y in crop pixels and a confidence in [0, 1].

    The position is the centre of mass of the softmax near the peak. Bins far from the peak are ignored, because the
    heatmap of an ambiguous limb has several peaks. The confidence is the lower of the two peak logits, clamped to
    [0, 1]. It is not a probability, but it falls with the expected error (docs/default-model.md).
    """
    peaks, confidence = [], []
    for logits in (x.float(), y.float()):
        peak, at = logits.max(-1, keepdim=True)
        index = torch.arange(logits.shape[-1], device=logits.device)
        near = (index - at).abs() <= 3 * BINS_PER_PIXEL
        weight = (10 * (logits - peak)).exp() * near  # 10: the sharpness of the heads in training
        peaks.append((weight * index).sum(-1) / weight.sum(-1) / BINS_PER_PIXEL)
        confidence.append(peak[..., 0])
    score = torch.minimum(*confidence).clamp(0, 1)
    return torch.stack([*peaks, score], -1)


def load_onnx(path: Path) -> RTMPose:
    """Load RTMPose from OpenMMLab's exported file (`rtmpose-s_simcc-body7_..._256x192`).

    Needs the `onnx` package (extra `train`). Raises FileError if the file contains another network.
    """
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise InputError("reading RTMPose's ONNX file needs `pip install i2l-meshnet[train]`") from error
    model = RTMPose()
    with reading(path, "RTMPose-s with 26 keypoints", "download the asset rtmpose again"):
        graph = onnx.load(path).graph
        arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant":
                arrays[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        values = {name: torch.from_numpy(np.array(array)).float() for name, array in arrays.items()}
        model.load_state_dict(_state(model, graph.node, values))
    return model.eval()


def _state(model: RTMPose, nodes: Sequence[Any], values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict from the nodes of the ONNX graph and their constants. Other graphs raise errors of any class."""
    parts = [*model.named_modules()]
    convolutions = [name for name, part in parts if isinstance(part, nn.Conv2d)]
    linears = [name for name, part in parts if isinstance(part, nn.Linear)]
    # In the file, convolutions and matrices have numbers instead of names. Their order identifies them.
    state: dict[str, Tensor] = {}
    for name, node in zip(convolutions, [n for n in nodes if n.op_type == "Conv"], strict=True):
        state[f"{name}.weight"], state[f"{name}.bias"] = values[node.input[1]], values[node.input[2]]
    matrices = [n for n in nodes if n.op_type == "MatMul" and n.input[1] in values]
    for name, node in zip(linears, matrices, strict=True):
        state[f"{name}.weight"] = values[node.input[1]].T.contiguous()
    shift = next(n for n in nodes if n.op_type == "Add" and "head.gau.beta" in n.input)
    gain = next(n for n in nodes if n.op_type == "Mul" and n.output[0] in shift.input)
    state["head.norm.gain"] = values["head.mlp.0.g"].reshape(1)
    state["head.attention.norm.gain"] = values["head.gau.ln.g"].reshape(1)
    state["head.attention.key_shift"] = values["head.gau.beta"].reshape(2, -1)
    state["head.attention.key_gain"] = values[next(name for name in gain.input if name in values)].reshape(2, -1)
    state["head.attention.residual_gain"] = values["head.gau.res_scale.scale"].reshape(-1)
    return state
