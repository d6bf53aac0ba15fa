"""Training the lifting parts of the default network (everything after RTMPose) on sampled poses, without images.

This loop does not use `i2l_meshnet.training`, because only a dozen lines would be shared: samples are drawn by step
number, the trained coefficients are not parameters of the network, and there are no epochs, processes, validation or
snapshots.
"""

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from i2l_lab.lifting.samples import BatchSampler, LiftingBatch
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.bodies.skinning import global_rotations
from i2l_meshnet.errors import InputError
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.io import read_torch, reading
from i2l_meshnet.models.fitting import prediction_errors, relative_depth
from i2l_meshnet.models.keypoint import GlobalRotationRegressor, KeypointPoseNet, VectorLixelHead
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.output import PoseOutput
from i2l_meshnet.precision import require_precision, supported_precisions
from i2l_meshnet.training.losses import PointTarget, edge_loss, normal_loss
from i2l_meshnet.training.state import write_state

RELIABLE = 0.5
"""Samples with a lower mean confidence do not count in a network's errors: there it guesses, and errs differently."""
PIXELS_PER_UNIT = 8.0
"""Unit of point losses, in crop pixels (about 65 mm on a standing adult)."""


@dataclasses.dataclass(frozen=True)
class LiftingOptions:
    """How the lifting parts are trained.

    steps: optimizer steps. batch: samples per step. detected: fraction of real detections on synthetic images.
    learning_rate: maximum; it rises over `warmup` steps and falls along a cosine to `final_rate` times the maximum.
    average: decay of the moving average of the weights, which is saved. heatmaps: decode lixels from heatmaps instead
    of from the centres of the heads' Gaussians (`VectorLixelHead`); training starts with the centres. meshed: fraction
    of a batch with a lixel mesh. surfaced: fraction of those meshes whose faces are compared (all with heatmaps).
    posed: fraction of a batch with a parametric mesh. *_weight: weights of the loss terms. workers: processes that draw
    batches (0: this process). precision: of the layers; the loss is always float32. auto: bf16 if the processor
    supports it, otherwise fp32.
    """

    steps: int = 8000
    batch: int = 512
    detected: float = 0.15
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    warmup: int = 100
    final_rate: float = 0.02
    average: float = 0.999
    clip: float = 5.0
    heatmaps: bool = False
    meshed: float = 0.25
    surfaced: float = 0.125
    posed: float = 0.125
    joint_weight: float = 1.0
    vertex_weight: float = 1.0
    mesh_joint_weight: float = 0.5
    rotation_weight: float = 3.0
    shape_weight: float = 0.3
    mesh_weight: float = 0.5
    normal_weight: float = 0.1
    edge_weight: float = 0.1
    workers: int = 1
    precision: Literal["auto", "fp32", "bf16"] = "auto"

    def chosen_precision(self) -> Literal["fp32", "bf16"]:
        """The precision to train in. Raise InputError if the processor does not support the requested one."""
        if self.precision == "auto":
            return "bf16" if "bf16" in supported_precisions() else "fp32"
        require_precision(self.precision)
        return self.precision


class _Batches(Dataset[LiftingBatch]):
    """A sampler's batches by number."""

    def __init__(self, sampler: BatchSampler, options: LiftingOptions, steps: range) -> None:
        self.sampler, self.options, self.steps = sampler, options, steps

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, item: int) -> LiftingBatch:
        return self.sampler.batch(self.steps[item], self.options.batch, self.options.detected)


def _use_one_thread(worker: int) -> None:
    """Workers with several threads each would slow each other down."""
    torch.set_num_threads(1)


class LiftingTrainer:
    """The state of a training: the network, its moving average, the optimizer and the step."""

    def __init__(self, network: MeshNet, body: Body, sampler: BatchSampler, options: LiftingOptions) -> None:
        self.network, self.body, self.sampler, self.options = network, body, sampler, options
        self.precision: Literal["fp32", "bf16"] = options.chosen_precision()
        self.parts = _lifting_parts(network)
        # The mesh head's rows are trained by their coefficients in a basis, so that its meshes are smooth surfaces.
        head = cast(VectorLixelHead, network.mesh_branch)
        self.rows = list(head.rows)
        meshes = torch.cat([sampler.batch(-1 - i, 256, 0.0).view_vertices for i in range(6)])
        self.basis = surface_basis(meshes, head.rows[0].shape[1])
        self.coefficients = [nn.Parameter(self.basis.T @ row.detach()) for row in self.rows]
        self._spread_rows()
        self.average = copy.deepcopy(network).eval()
        free = [p for p in self.parts.parameters() if all(p is not row for row in self.rows)]
        self.trained = [*free, *self.coefficients]
        decayed = [p for p in free if p.ndim > 1] + self.coefficients
        others = [p for p in free if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed}, {"params": others, "weight_decay": 0.0}],
            lr=options.learning_rate,
            weight_decay=options.weight_decay,
            fused=True,
        )
        kept = _lifting_parts(self.average).parameters()
        self._pairs = list(zip(kept, self.parts.parameters(), strict=True))
        self.step = 0

    def run(
        self,
        log: Callable[[dict[str, float]], None],
        every: int = 100,
        save_to: Path | None = None,
        save_every: int = 500,
        until: int | None = None,
    ) -> None:
        """Train up to step `until` (default: all steps). `log` gets the mean loss terms after every `every` steps.

        The training state is saved to `save_to` after every `save_every` steps and at the end.
        """
        end = self.options.steps if until is None else min(until, self.options.steps)
        sums: dict[str, float] = {}
        started, first, counted = time.monotonic(), self.step, 0
        for batch in self._batches(end):
            for name, value in self.train_step(batch).items():
                sums[name] = sums.get(name, 0.0) + value
            counted += 1
            if self.step % every == 0 or self.step == end:
                rate = (self.step - first) * self.options.batch / (time.monotonic() - started)
                means = {name: value / counted for name, value in sums.items()}
                log({"step": self.step, **means, "rate": self._rate(), "samples_per_second": rate})
                sums, counted = {}, 0
            if save_to is not None and (self.step % save_every == 0 or self.step == end):
                self.save(save_to)

    def _batches(self, end: int) -> Iterable[LiftingBatch]:
        """Batches from the current step to `end`, drawn by the workers."""
        return DataLoader(
            _Batches(self.sampler, self.options, range(self.step, end)),
            batch_size=None,
            num_workers=self.options.workers,
            worker_init_fn=_use_one_thread,
        )

    def save(self, path: Path) -> None:
        """Save the training state that `resume` needs, atomically."""
        state = {
            "options": dataclasses.asdict(self.options),
            "precision": self.precision,
            "step": self.step,
            "network": self.parts.state_dict(),
            "average": _lifting_parts(self.average).state_dict(),
            "coefficients": [coefficients.detach() for coefficients in self.coefficients],
            "optimizer": self.optimizer.state_dict(),
        }
        write_state(path, state)

    def resume(self, path: Path) -> None:
        """Continue from a training state as if the run had never stopped.

        Raise FileError if the file is not a state of this training, InputError if it has another precision.
        """
        with reading(path, "a state of this training"):
            state: dict[str, Any] = read_torch(path)
            precision = state.get("precision", self.precision)
            if precision != self.precision:
                raise InputError(
                    f"{path} was trained in {precision}, not {self.precision}: resume in {precision}, on a processor "
                    "that supports it",
                    argument="training.precision",
                )
            self.parts.load_state_dict(state["network"])
            _lifting_parts(self.average).load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            for kept, saved in zip(self.coefficients, state["coefficients"], strict=True):
                kept.data.copy_(saved)
            self.step = int(state["step"])

    @torch.no_grad()
    def _spread_rows(self) -> None:
        for row, coefficients in zip(self.rows, self.coefficients, strict=True):
            row.copy_(self.basis @ coefficients)

    def start_from(self, path: Path) -> None:
        """Load the averaged weights of another training state, where names and shapes agree."""
        with reading(path, "a training state of lifting parts"):
            state: dict[str, Any] = read_torch(path)["average"]
        own = self.parts.state_dict()
        fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
        self.parts.load_state_dict(fitting, strict=False)

    def _rate(self) -> float:
        options = self.options
        fall = 0.5 * (1 + math.cos(math.pi * self.step / options.steps))
        return (
            options.learning_rate
            * min(1, (self.step + 1) / options.warmup)
            * (options.final_rate + (1 - options.final_rate) * fall)
        )

    def train_step(self, batch: LiftingBatch) -> dict[str, float]:
        """One optimizer step; returns the weighted loss terms."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate()
        self.network.train()
        terms = lifting_losses(self.network, self.body, batch, self.options, self.precision)
        total = torch.stack(list(terms.values())).sum()
        self.network.zero_grad()
        total.backward()
        for row, coefficients in zip(self.rows, self.coefficients, strict=True):
            assert row.grad is not None
            coefficients.grad = self.basis.T @ row.grad
        nn.utils.clip_grad_norm_(self.trained, self.options.clip)
        self.optimizer.step()
        self._spread_rows()
        self.step += 1
        decay = min(self.options.average, 1 - 1 / (self.step + 1) ** 0.7)
        with torch.no_grad():
            for kept, new in self._pairs:
                kept.lerp_(new, 1 - decay)
        return {name: float(value.detach()) for name, value in terms.items()}


def lifting_losses(
    network: MeshNet, body: Body, batch: LiftingBatch, options: LiftingOptions, precision: Literal["fp32", "bf16"]
) -> dict[str, Float[Tensor, ""]]:
    """The weighted loss terms of a batch; their sum is the loss. precision: of the layers."""
    pose_net = cast(KeypointPoseNet, network.pose_net)
    regressor = cast(GlobalRotationRegressor, network.parameter_regressor)
    head = cast(VectorLixelHead, network.mesh_branch)
    meshed = _stride(options.meshed)
    surfaced, posed = _stride(options.surfaced), _stride(options.posed)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        trunk = pose_net.trunk(batch.keypoints)
        joints = pose_net.head(trunk) if options.heatmaps else pose_net.head.centers(trunk)
        feature = network.pose_to_feature(PoseOutput(joints, trunk))
        vertices = head(feature[meshed]) if options.heatmaps else head.centers(feature[meshed])
    mesh_joints = network.joint_regressor @ vertices
    # Samples without a mesh use the joints of the pose stage instead: both are the same joints.
    known = joints.detach().clone()
    known[meshed] = mesh_joints.detach()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        rotations, shape = regressor.camera_frame(known, feature)
    unit = _axis_units(network.grid, batch.scale)[:, None]

    def distance(found: Tensor, true: Tensor, rows: slice) -> Tensor:
        weight = _visibility(network.grid, true)[..., None]
        return ((found - true).abs() * unit[rows] * weight).mean()

    some = slice(None) if options.heatmaps else surfaced
    target = batch.vertices[meshed][some]
    surface = PointTarget(target, _visibility(network.grid, target)[..., None].expand(-1, -1, 3))
    mesh = body(regressor.params(rotations[posed], shape[posed]))
    posed_vertices = mesh.vertices - mesh.joints[:, body.skeleton.root_index, None]
    off = (posed_vertices - batch.view_vertices[posed]).abs() * batch.scale[posed, None, None] / PIXELS_PER_UNIT
    return {
        "joints": options.joint_weight * distance(joints, batch.joints, slice(None)),
        "vertices": options.vertex_weight * distance(vertices, batch.vertices[meshed], meshed),
        "mesh_joints": options.mesh_joint_weight * distance(mesh_joints, batch.joints[meshed], meshed),
        "normal": options.normal_weight * normal_loss(vertices[some], surface, body.faces),
        "edge": options.edge_weight * edge_loss(vertices[some], surface, body.faces),
        "rotations": options.rotation_weight * (rotations - batch.rotations)[..., :2].abs().mean(),
        "shape": options.shape_weight * (shape - batch.shape).abs().mean(),
        "mesh": options.mesh_weight * off.mean(),
    }


@torch.no_grad()
def learn_errors(network: MeshNet, body: Body, batches: Iterable[LiftingBatch]) -> None:
    """Give the fit of a trained network (`ParameterFit`) the statistics of the network's errors."""
    fit = network.parameter_fit
    assert fit is not None
    grid, errors = network.grid, []
    for batch in batches:
        output = network.from_pose(cast(KeypointPoseNet, network.pose_net).lift(batch.keypoints))
        assert output.params is not None
        found = global_rotations(output.params.pose, body.parents)
        found_depth, depth = (relative_depth(grid, j, fit.root) for j in (output.mesh_joints, batch.joints))
        errors.append(
            prediction_errors(found, output.params.shape, found_depth, batch.rotations, batch.shape, depth)[
                batch.keypoints[..., 2].mean(1) > RELIABLE
            ]
        )
    fit.learn(torch.cat(errors))


def start_heads(network: MeshNet, sampler: BatchSampler) -> None:
    """Initialise the heads of an untrained network: with the mean body, and rows that span the surfaces of bodies.

    The rows are scaled so that unit features move the points as much as poses do.
    """
    batch = LiftingBatch.concatenate([sampler.batch(-1 - i, 256, 0.0) for i in range(6)])
    middle = (batch.vertices.new_tensor(network.grid.shape[::-1]) - 1) / 2
    mesh_head = cast(VectorLixelHead, network.mesh_branch)
    joint_head = cast(KeypointPoseNet, network.pose_net).head
    with torch.no_grad():
        basis = surface_basis(batch.view_vertices, mesh_head.rows[0].shape[1])
        mean = batch.vertices.mean(0)
        spread = (basis.T @ (batch.vertices - mean)).std(0)
        for axis, row in enumerate(mesh_head.rows):
            row.copy_(basis * spread[:, axis])
        mesh_head.centre.copy_(mean - middle)
        for axis, row in enumerate(joint_head.rows):
            row.copy_(torch.diag(batch.joints[..., axis].std(0)))
        joint_head.centre.copy_(batch.joints.mean(0) - middle)


def surface_basis(meshes: Float[Tensor, "n v 3"], rank: int) -> Float[Tensor, "v {rank}"]:
    """Orthonormal functions on a mesh that span its coordinates best: the constant and principal components.

    Posed bodies are nearly linear combinations of a few of them (96 leave an error of 0.8 mm). A head whose rows are in
    their span makes smooth surfaces, and learns all vertices from any vertex.
    """
    centered = (meshes - meshes.mean(1, keepdim=True)).double()
    products = torch.einsum("nvi,nwi->vw", centered, centered)
    values, vectors = torch.linalg.eigh(products)
    constant = torch.ones_like(vectors[:, :1])
    basis, _ = torch.linalg.qr(torch.cat([constant, vectors[:, values.argsort(descending=True)[: rank - 1]]], 1))
    return basis.float()


def _stride(share: float) -> slice:
    """About a fraction `share` of a batch, evenly spaced, so that it contains samples of all kinds."""
    return slice(None, None, max(1, round(1 / share)))


def _lifting_parts(network: MeshNet) -> nn.ModuleList:
    """The trained parts: all except the keypoint estimator."""
    pose_net = cast(KeypointPoseNet, network.pose_net)
    assert network.parameter_regressor is not None
    return nn.ModuleList(
        [pose_net.trunk, pose_net.head, network.pose_to_feature, network.mesh_branch, network.parameter_regressor]
    )


def _axis_units(grid: LixelGrid, scale: Float[Tensor, "b"]) -> Float[Tensor, "b 3"]:
    """Loss units per lixel along x, y and z. A unit is the same length in all directions at the body's depth."""
    span = 1 + 2 * grid.margin
    x = span * grid.crop_size[1] / grid.shape[2]
    y = span * grid.crop_size[0] / grid.shape[1]
    z = grid.depth_extent / grid.shape[0] * scale
    return torch.stack([torch.full_like(z, x), torch.full_like(z, y), z], -1) / PIXELS_PER_UNIT


def _visibility(grid: LixelGrid, points: Float[Tensor, "b n 3"]) -> Float[Tensor, "b n"]:
    """Weight of lixels: 1 in the crop and a margin of 10 %, 0.25 elsewhere on the grid, 0 outside the grid."""
    bins = points.new_tensor([grid.shape[2], grid.shape[1], grid.shape[0]])
    on_grid = ((points >= 0) & (points <= bins - 1)).all(-1)
    pixels, _ = grid.decode(points)
    size = points.new_tensor([grid.crop_size[1], grid.crop_size[0]])
    in_crop = ((pixels >= -0.1 * size) & (pixels <= 1.1 * size)).all(-1)
    return on_grid * (0.25 + 0.75 * in_crop)
