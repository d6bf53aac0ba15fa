"""The published body layer and alignment, plain and slow. The published network is in `models.reference`."""

import numpy as np
import torch
from torch import Tensor

from i2l_meshnet.bodies.linear import LinearBody


def pose_plainly(body: LinearBody, pose: Tensor, shape: Tensor, shift: Tensor) -> Tensor:
    """Vertices and bone heads of one body, as the reference implementations of SMPL and MANO compute them.

    pose: axis-angle (1, k, 3); shape (1, s); shift (1, 3).
    """
    bones, vertices = len(body.parents), body.template.shape[0]
    angle = (pose + 1e-8).norm(dim=-1, keepdim=True)
    half, axis = angle / 2, pose / angle
    w, (x, y, z) = half.cos()[..., 0], (half.sin() * axis).unbind(-1)
    rows = [w * w + x * x - y * y - z * z, 2 * x * y - 2 * w * z, 2 * w * y + 2 * x * z]
    rows += [2 * w * z + 2 * x * y, w * w - x * x + y * y - z * z, 2 * y * z - 2 * w * x]
    rows += [2 * x * z - 2 * w * y, 2 * w * x + 2 * y * z, w * w - x * x - y * y + z * z]
    turns = torch.stack(rows, -1).view(1, bones, 3, 3)
    change = (turns[:, 1:] - torch.eye(3)).reshape(1, -1)
    shape_matrix = body.shape_directions.T.view(vertices, 3, -1)
    pose_matrix = body.pose_directions.T.view(vertices, 3, -1)
    rest = body.template + torch.matmul(shape_matrix, shape.T).permute(2, 0, 1)
    starts = torch.matmul(body.bone_regressor, rest)
    posed = rest + torch.matmul(pose_matrix, change.T).permute(2, 0, 1)
    last = torch.tensor([[[0.0, 0.0, 0.0, 1.0]]])
    chain: list[Tensor] = []
    for bone in range(bones):
        parent = body.parents[bone]
        offset = starts[:, bone] - (starts[:, parent] if bone else 0)
        local = torch.cat([torch.cat([turns[:, bone], offset[..., None]], 2), last], 1)
        chain.append(torch.matmul(chain[parent], local) if bone else local)
    maps = []
    for bone in range(bones):
        start = torch.cat([starts[:, bone], torch.zeros(1, 1)], 1)[..., None]
        away = torch.matmul(chain[bone], start)
        maps.append(chain[bone] - torch.cat([torch.zeros(1, 4, 3), away], 2))
    blended = torch.matmul(torch.stack(maps, -1), body.weights.T)
    homogeneous = torch.cat([posed.permute(0, 2, 1), torch.ones(1, 1, vertices)], 1)
    moved = (blended * homogeneous[:, None]).sum(2).permute(0, 2, 1)[:, :, :3]
    places = torch.stack(chain, 1)[:, :, :3, 3]
    return torch.cat([moved, places], 1) + shift[:, None]


def align_plainly(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Similarity alignment of one point set (n, 3) with another."""
    mean_source, mean_target = source.mean(0), target.mean(0)
    covariance = (source - mean_source).T @ (target - mean_target) / len(source)
    u, s, vt = np.linalg.svd(covariance)
    rotation = vt.T @ u.T
    if np.linalg.det(rotation) < 0:
        s[-1] = -s[-1]
        vt[2] = -vt[2]
        rotation = vt.T @ u.T
    scale = s.sum() / source.var(0).sum()
    return (scale * rotation @ source.T).T + mean_target - scale * rotation @ mean_source
