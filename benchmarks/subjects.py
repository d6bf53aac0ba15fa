"""Random bodies and networks of the published sizes, which need no licensed files, and synthetic images."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from i2l_meshnet.bodies import load_body
from i2l_meshnet.bodies.linear import MANO_FORM, SMPL_FORM, LinearBody, LinearBodyData
from i2l_meshnet.models import assembly
from i2l_meshnet.models.backbone import Bottleneck
from i2l_meshnet.models.lixel_head import LixelHead
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.published import PublishedMeshBranch, PublishedPoseNet
from i2l_meshnet.rendering.shading import render_meshes

SEED = 11


def random_body(hand: bool = False) -> LinearBody:
    """A body of SMPL's or MANO's sizes with random constants, so posing takes as long as for the real one."""
    vertices, bones, faces = (778, 16, 1538) if hand else (6890, 24, 13776)
    generator = np.random.default_rng(SEED)
    weights = np.zeros((vertices, bones))
    near = generator.integers(0, bones, (vertices, 4))
    np.put_along_axis(weights, near, generator.random((vertices, 4)), 1)
    regressor = np.zeros((bones, vertices))
    np.put_along_axis(regressor, generator.integers(0, vertices, (bones, 30)), 1 / 30, 1)
    first = generator.integers(0, vertices, faces)
    data = LinearBodyData(
        template=generator.normal(0, 0.3, (vertices, 3)),
        shape_directions=generator.normal(0, 0.01, (vertices, 3, 10)),
        pose_directions=generator.normal(0, 0.001, (vertices, 3, 9 * (bones - 1))),
        weights=weights / weights.sum(1, keepdims=True),
        bone_regressor=regressor,
        parents=np.array([-1, *((bone - 1) // 2 for bone in range(1, bones))]),
        faces=(first[:, None] + np.arange(3)) % vertices,
        pose_mean=np.zeros((bones, 3)),
    )
    return LinearBody(MANO_FORM if hand else SMPL_FORM, data)


@torch.no_grad()
def random_network(body: LinearBody, sharpness: float = 2.0) -> MeshNet:
    """The published network (ResNet-50, no parameter regressor) in evaluation mode with random weights.

    Activations and points spread about as in a trained network, so rounding errors are similar: He initialisation,
    weak residual branches, BatchNorm statistics of a batch of images, and heatmap logits with a standard deviation of
    about `sharpness`.
    """
    generator = torch.Generator().manual_seed(SEED)
    network = assembly.build(assembly.published_config(body), body).eval()
    network.parameter_regressor = None
    for part in network.modules():
        if isinstance(part, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d):
            # With stride 2, 2 x 2 of the 4 x 4 taps of a transposed convolution reach each output.
            taps = part.in_channels * 4 if isinstance(part, nn.ConvTranspose2d) else part.weight[0].numel()
            part.weight.normal_(0, (2 / taps) ** 0.5, generator=generator)
        elif isinstance(part, Bottleneck):
            part.bn3.weight.fill_(0.3)
    image, norms = pictures(4), [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.train().momentum = 1.0
    network(image)
    for norm in norms:
        norm.eval().momentum = 0.1
    pose_net, mesh_branch = network.pose_net, network.mesh_branch
    assert isinstance(pose_net, PublishedPoseNet)
    assert isinstance(mesh_branch, PublishedMeshBranch)
    assert isinstance(pose_net.head, LixelHead)
    assert isinstance(mesh_branch.head, LixelHead)
    _sharpen(pose_net.head, pose_net.backbone(image)[1], sharpness)
    _sharpen(mesh_branch.head, mesh_branch.backbone(network.pose_to_feature(pose_net(image))), sharpness)
    return network


def _sharpen(head: LixelHead, deep: Float[Tensor, "b c h w"], sharpness: float) -> None:
    """Scale a head's last layers: for the map `deep`, logits have a standard deviation of `sharpness`."""
    for layer, columns in zip((head.conv_x, head.conv_y, head.conv_z_2), head.features(deep), strict=True):
        layer[0].weight *= sharpness / layer(columns).std(-1).mean()


def pictures(batch: int, size: int = 256) -> Float[Tensor, "{batch} 3 {size} {size}"]:
    """Coarse blocks of colour with noise, in [0, 1]."""
    generator = torch.Generator().manual_seed(SEED)
    blocks = torch.rand(batch, 3, 8, 8, generator=generator)
    noise = torch.rand(batch, 3, size, size, generator=generator)
    return 0.7 * nn.functional.interpolate(blocks, size=(size, size)) + 0.3 * noise


def person(height: int, width: int) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """The Anny body at rest in front of blocks of colour; RGB."""
    body = load_body("anny")
    vertices = body(body.rest_params(1)).vertices[0].numpy()
    # Anny's z is up and its y is backwards; the camera's y is down. 5 m away, four fifths of the image's height.
    vertices = vertices[:, [0, 2, 1]] * [1, -1, 1]
    vertices = vertices - (vertices.min(0) + vertices.max(0)) / 2 + [0, 0, 5]
    focal = 0.8 * height * 5 / float(np.ptp(vertices[:, 1]))
    colours = np.full_like(vertices, 0.7)
    center = (width / 2, height / 2)
    drawn, coverage = render_meshes(vertices, body.faces.numpy(), (focal, focal), center, (height, width), colours)
    behind = nn.functional.interpolate(pictures(1), size=(height, width))[0].permute(1, 2, 0).numpy()
    return (255 * (behind * (1 - coverage[..., None]) + drawn)).astype(np.uint8)
