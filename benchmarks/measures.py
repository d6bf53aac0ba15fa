"""The measurements of `python benchmarks/run.py`: a function for each group of rows."""

import contextlib
import dataclasses
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv1d

import fresh
from i2l_meshnet import assets
from i2l_meshnet.bodies import Body, BodyParams, load_body
from i2l_meshnet.bodies.anny import AnnyBody
from i2l_meshnet.errors import InputError
from i2l_meshnet.geometry.alignment import similarity_align
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import Crop
from i2l_meshnet.geometry.lixel import soft_argmax
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix
from i2l_meshnet.models.exported import ExportedNetwork
from i2l_meshnet.models.inference import for_inference
from i2l_meshnet.models.lixel_head import LixelHead, linear_soft_argmax
from i2l_meshnet.models.loading import load_network, shipped_weights
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.output import LixelNetwork
from i2l_meshnet.models.reference import plain_copy
from i2l_meshnet.precision import DTYPES, Precision, supported_precisions
from i2l_meshnet.prediction.detect import PersonDetector
from i2l_meshnet.prediction.images import read_photo
from i2l_meshnet.prediction.options import InputOptions, NetworkOptions, PeopleOptions, PredictOptions
from i2l_meshnet.prediction.results import SaveOptions
from i2l_meshnet.rendering.raster import rasterize
from i2l_meshnet.rendering.shading import project, render_meshes
from i2l_meshnet.runtimes import import_openvino
from i2l_meshnet.video import predict as predict_command
from i2l_meshnet.video.options import ClipOptions
from loader import CASES, loading_variants
from peers import Missing, anny_body, smplx_body
from published import align_plainly, pose_plainly
from runtimes import exported_ways
from scoring import VERTICES, make_predictions, published_evaluate, scored
from subjects import SEED, person, pictures, random_body, random_network
from timing import Row, Timings, interleave, missing_row, timed_rows
from training_step import step_variants

Variants = Mapping[str, Callable[[], object]]
PUBLISHED = "published"
COMMAND = "import sys; from i2l_meshnet.cli import main; sys.exit(main())"
PHOTO_SIZE = (1024, 1536)
"""Height and width of the synthetic photo."""


@dataclasses.dataclass(frozen=True)
class Bench:
    """How to measure. rounds, budget: maximum rounds and seconds per comparison. clock: wall or processor time."""

    device: torch.device
    rounds: int
    budget: float
    clock: Callable[[], float]
    batches: tuple[int, ...]

    def compare(self, variants: Variants) -> Timings:
        """Time the variants, interleaved."""
        wait = partial(torch.cuda.synchronize, self.device) if self.device.type == "cuda" else None
        return interleave(variants, self.rounds, self.clock, wait, self.budget)


def published_network(bench: Bench, weights: Path | None, body_directory: Path | None) -> Iterator[Row]:
    """Forward passes of the published network: the published formulation and ours, in each precision."""
    network, _ = _published(weights, body_directory)
    ready = {PUBLISHED: plain_copy(network)}
    ready |= {precision: for_inference(network, precision, bench.device) for precision in _precisions(bench.device)}
    yield from _forward_passes(bench, "published network", ready)


def _precisions(device: torch.device) -> Iterator[Precision]:
    """The precisions that a device supports."""
    return (precision for precision in DTYPES if precision in supported_precisions(device))


def default_network(bench: Bench) -> Iterator[Row]:
    """Forward passes of the default network, compared with itself before `for_inference`."""
    network, _, _ = load_network(shipped_weights())
    ready = {"as trained": network, "fp32": for_inference(network, device=bench.device)}
    yield from _forward_passes(bench, "default network", ready)
    yield missing_row("default network", "bf16", "not offered: keypoints move by half a pixel, the mesh by centimetres")


def runtimes(bench: Bench, weights: Path | None, body_directory: Path | None) -> Iterator[Row]:
    """Forward passes of both networks in other runtimes and PyTorch; CPU. No rows if OpenVINO is not installed."""
    try:
        import_openvino()
    except InputError as error:
        print(f"left out: {error}", file=sys.stderr)
        return
    bench = dataclasses.replace(bench, device=torch.device("cpu"), batches=bench.batches[:2])
    networks = (
        ("published network", PUBLISHED, *_published(weights, body_directory)),
        ("default network", "as trained", *load_network(shipped_weights())[:2]),
    )
    for what, peer, network, body in networks:
        with tempfile.TemporaryDirectory() as folder:
            ready = {peer: plain_copy(network), "fp32": for_inference(network)}
            ready |= exported_ways(network, body, Path(folder))
            yield from _forward_passes(bench, f"{what}, runtimes", ready)


def _published(weights: Path | None, body_directory: Path | None) -> tuple[MeshNet, Body]:
    """A published network, of a file or with random weights, and its body."""
    if weights is not None:
        return load_network(weights, body_directory)[:2]
    body = random_body()
    return random_network(body), body


@torch.inference_mode()
def _forward_passes(bench: Bench, what: str, networks: Mapping[str, MeshNet | ExportedNetwork]) -> Iterator[Row]:
    first = next(iter(networks))
    networks[first].to(bench.device)  # pyright: ignore[reportAttributeAccessIssue] (the peer is a network of ours)
    height, width = networks[first].grid.crop_size
    crop = torch.from_numpy(person(height, width)).to(bench.device).permute(2, 0, 1).float() / 255

    def crops(variant: str, batch: int) -> Float[Tensor, "b 3 h w"]:
        """Contiguous for the first variant, as published; channels last for the others, as in `predict`."""
        image = crop.expand(batch, -1, -1, -1).contiguous()
        return image if variant == first else image.contiguous(memory_format=torch.channels_last)

    placed = {variant: _in_space(network, crops(variant, 1)) for variant, network in networks.items()}
    deviations = {
        variant: 1000 * float((found - placed[first]).norm(dim=-1).max()) for variant, found in placed.items()
    }
    del deviations[first]
    work = {
        variant: work_of(network, crops(variant, 1))
        for variant, network in networks.items()
        if isinstance(network, MeshNet)
    }
    for batch in bench.batches:
        timings = bench.compare(
            {variant: partial(network, crops(variant, batch)) for variant, network in networks.items()}
        )
        yield from timed_rows(f"{what}, batch {batch}", timings, batch, batch > 1, deviations, work)


def _in_space(network: LixelNetwork, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b v 3"]:
    """Vertices of people 2 m tall and 5 m from a camera of 1,000 px, in `predict`'s crops; m."""
    vertices = network(image).vertices.cpu()
    height, width = network.grid.crop_size
    people = len(vertices)
    box = torch.tensor([0.0, 0.0, 500.0 * width / height, 500.0]).expand(people, 4)
    camera = Camera(torch.full((people, 2), 1000.0), torch.full((people, 2), 250.0))
    crop = Crop.around(box, (height, width), margin=1.0)
    return network.grid.to_camera(vertices, crop, camera, torch.full((people,), 5.0))


@torch.inference_mode()
def work_of(network: MeshNet, image: Float[Tensor, "1 3 h w"]) -> float:
    """GFLOP of one forward pass; a multiply-add counts as two."""
    from torch.utils.flop_counter import FlopCounterMode  # takes a second

    with FlopCounterMode(display=False) as counter:
        network(image)
    return counter.get_total_flops() / 1e9


def pass_memory(bench: Bench) -> Iterator[Row]:
    """Peak memory that a forward pass of the published network adds, in fresh processes; CPU."""
    for batch in bench.batches[:2]:
        found = {
            variant: fresh.measure("memory", variant, str(batch))
            for variant in (PUBLISHED, *_precisions(torch.device("cpu")))
        }
        for variant, value in found.items():
            peer = None if variant == PUBLISHED else PUBLISHED
            times = None if peer is None else found[peer] / value
            yield Row(f"memory of a pass, batch {batch}", variant, value, value, value, "MiB", None, peer, times)


def cold_start(photo: Path | None) -> Iterator[Row]:
    """From process start to a mesh in Python, and to all files of `predict`; wall time, warm file cache."""
    yield _seconds("first mesh from a cold process", "MeshPredictor", [fresh.measure("mesh") for _ in range(3)])
    times = []
    with tempfile.TemporaryDirectory() as folder:
        picture = photo or _write_photo(Path(folder) / "photo.jpg")
        for turn in range(3):
            options = [str(picture), "--out", f"{folder}/{turn}", *(["--no-detect"] if photo is None else [])]
            start = time.perf_counter()
            fresh.output("-c", COMMAND, "predict", *options)
            times.append(time.perf_counter() - start)
    yield _seconds("first result from a cold process", "predict", times)


def _seconds(what: str, variant: str, values: list[float]) -> Row:
    return Row(what, variant, statistics.median(values), min(values), max(values), "s")


def body_layer(bench: Bench, batch: int = 16) -> Iterator[Row]:
    """Posing bodies of SMPL's size, compared with the reference implementation, one by one; CPU."""
    body, generator = random_body(), torch.Generator().manual_seed(SEED)
    pose = torch.randn(batch, len(body.bones), 3, generator=generator) * 0.3
    shape = torch.randn(batch, 10, generator=generator)
    shift = torch.zeros(batch, 3)
    params = BodyParams(axis_angle_to_matrix(pose), shape, shift)

    def plainly() -> Tensor:
        bodies = [pose_plainly(body, pose[i : i + 1], shape[i : i + 1], shift[:1]) for i in range(batch)]
        return torch.cat(bodies)[:, : len(body.template)]

    variants, absent = _present({"smplx": lambda: smplx_body(body, params)})
    ours = lambda: body(params).vertices  # noqa: E731
    yield from _body_rows(
        bench, f"body layer, {batch} bodies", {"one by one": plainly, **variants, "ours": ours}, batch
    )
    yield from _absent_rows(f"body layer, {batch} bodies", absent)

    person = AnnyBody.load(bones=None)
    turned = torch.randn(batch, len(person.bones), 3, generator=generator) * 0.2
    shapes = torch.rand(batch, len(person.shape_names), generator=generator)
    posed = BodyParams(axis_angle_to_matrix(turned), shapes, shift)
    variants, absent = _present({"anny": lambda: anny_body(person, person.shape_names, posed)})
    ours = lambda: person(posed).vertices  # noqa: E731
    yield from _body_rows(bench, f"Anny body, {batch} bodies", {**variants, "ours": ours}, batch)
    yield from _absent_rows(f"Anny body, {batch} bodies", absent)


def _present(
    peers: Mapping[str, Callable[[], Callable[[], Any]]],
) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """The peers that can be measured, and the reasons for the others."""
    ready, absent = {}, {}
    for name, make in peers.items():
        try:
            ready[name] = make()
        except Missing as error:
            absent[name] = str(error)
    return ready, absent


def _absent_rows(what: str, absent: Mapping[str, str]) -> Iterator[Row]:
    for name, reason in absent.items():
        yield missing_row(what, name, reason)


@torch.inference_mode()
def _body_rows(bench: Bench, what: str, variants: Mapping[str, Callable[[], Tensor]], batch: int) -> Iterator[Row]:
    """Rows of variants that return vertices (m), each with its deviation from the first variant."""
    first, *others = variants
    wanted = variants[first]()
    deviations = {variant: 1000 * float((variants[variant]() - wanted).norm(dim=-1).max()) for variant in others}
    yield from timed_rows(what, bench.compare(variants), batch, deviations=deviations)


def procrustes(bench: Bench, batch: int = 32) -> Iterator[Row]:
    """Aligning meshes of SMPL's size, compared with NumPy, one by one; CPU."""
    generator = torch.Generator().manual_seed(SEED)
    source = torch.randn(batch, 6890, 3, generator=generator) * 0.3
    target = source + 0.05 * torch.randn(source.shape, generator=generator)
    pairs = list(zip(source.numpy(), target.numpy(), strict=True))

    def plainly() -> list[np.ndarray]:
        return [align_plainly(*pair) for pair in pairs]

    difference = similarity_align(source, target) - torch.from_numpy(np.stack(plainly()))
    timings = bench.compare({"NumPy, one by one": plainly, "ours": lambda: similarity_align(source, target)})
    deviation = 1000 * float(difference.norm(dim=-1).max())
    yield from timed_rows(f"Procrustes, {batch} meshes", timings, batch, deviations={"ours": deviation})


def rendering(bench: Bench, side: int = 1024) -> Iterator[Row]:
    """One body that fills the image: rendered with light, and rasterised only; CPU."""
    body = load_body("anny")
    vertices = (body(body.rest_params(1)).vertices[0] @ body.upright.T).numpy()  # pyright: ignore[reportAttributeAccessIssue]
    vertices = vertices - (vertices.min(0) + vertices.max(0)) / 2 + [0, 0, 5]
    focal = 0.95 * side * 5 / float(np.ptp(vertices[:, 1]))
    faces, grey = body.faces.numpy(), np.full_like(vertices, 0.7)
    center = (side / 2, side / 2)
    points = project(vertices, (focal, focal), center)
    tasks = {
        "rendering": lambda: render_meshes(vertices, faces, (focal, focal), center, (side, side), grey, supersample=1),
        "rasteriser": lambda: rasterize(points, faces, (side, side)),
    }
    for name, task in tasks.items():
        yield from timed_rows(f"{name}, a body in {side} x {side}", bench.compare({"ours": task}))


def parts(bench: Bench, batch: int = 8) -> Iterator[Row]:
    """The two rewritten parts of the network, forward and with backward, compared with the published formulation."""
    network = random_network(random_body()).to(bench.device)
    plain = plain_copy(network)
    head, plain_head = network.mesh_branch.get_submodule("head"), plain.mesh_branch.get_submodule("head")
    assert isinstance(head, LixelHead)
    assert isinstance(plain_head, LixelHead)
    with torch.no_grad():
        pose = network.pose_net(pictures(batch).to(bench.device))
        columns = head.features(network.mesh_branch.get_submodule("backbone")(network.pose_to_feature(pose)))
    layers = (plain_head.conv_x, plain_head.conv_y, plain_head.conv_z_2)
    pairs = list(zip(columns, (layer.get_parameter("0.weight") for layer in layers), strict=True))
    variants: dict[str, dict[str, Callable[[], Tensor]]] = {
        "pose to feature": {
            PUBLISHED: lambda: plain.pose_to_feature(pose),
            "ours": lambda: network.pose_to_feature(pose),
        },
        "soft-argmax of 6,890 vertices": {
            PUBLISHED: lambda: torch.stack([soft_argmax(conv1d(c, w)) for c, w in pairs]),
            "ours": lambda: torch.stack([linear_soft_argmax(c, w.squeeze(-1)) for c, w in pairs]),
        },
    }
    for what, both in variants.items():
        with torch.no_grad():
            yield from timed_rows(f"{what}, batch {batch}", bench.compare(both), batch)
        learning = {variant: lambda run=run: run().sum().backward() for variant, run in both.items()}
        yield from timed_rows(f"{what}, forward and backward, batch {batch}", bench.compare(learning), batch)


def training_step(bench: Bench, batch: int) -> Iterator[Row]:
    """A training step of the lixel stage of the body network."""
    variants = step_variants(batch, bench.device.type, half="bf16" in _precisions(bench.device))
    yield from timed_rows(f"training step, images, batch {batch}", bench.compare(variants), batch, rate=True)


def loader(bench: Bench, samples: int) -> Iterator[Row]:
    """Training samples per second, from images of the datasets' sizes; one process."""
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            timings = bench.compare(loading_variants(case, Path(folder), samples))
        yield from timed_rows(f"loader, {case.name} {case.size[0]} x {case.size[1]}", timings, samples, rate=True)


def evaluation(bench: Bench, samples: int = 256, batch: int = 32) -> Iterator[Row]:
    """Scoring predictions. The deviation is between the reported errors."""
    cases = (
        ("MPJPE and PA-MPJPE, sparse regressor", 32, False),
        ("MPJPE and PA-MPJPE, dense regressor", VERTICES, False),
        ("all body metrics (ours only)", 32, True),
    )
    for name, per_joint, everything in cases:
        predictions = make_predictions(samples, per_joint)
        oracle = published_evaluate(predictions)
        ours = scored(predictions, batch, bench.device.type, everything)
        columns = [0, 1, 6, 7] if everything else [0, 1, 2, 3]
        deviation = float(np.abs(oracle() - ours()[:, columns]).max())
        timings = bench.compare({PUBLISHED: oracle, "ours": ours})
        yield from timed_rows(f"evaluation, {name}", timings, samples, deviations={"ours": deviation})


def whole_path(bench: Bench, photo: Path | None, count: int) -> Iterator[Row]:
    """`predict` on copies of a photo with all result files, and the detector alone if it has been downloaded."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        picture = photo or _write_photo(folder / "photo.jpg")
        copies = folder / "copies"
        copies.mkdir()
        for number in range(count):
            (copies / f"{number}{picture.suffix}").write_bytes(picture.read_bytes())
        detector = assets.find("detector")
        detect = photo is not None and detector is not None

        def predict(pictures: bool) -> None:
            with tempfile.TemporaryDirectory(dir=folder) as out, contextlib.redirect_stdout(io.StringIO()):
                output = SaveOptions() if pictures else SaveOptions(formats=(), pictures=False)
                network, people = (
                    NetworkOptions(device="cuda" if bench.device.type == "cuda" else "cpu"),
                    PeopleOptions(detect=detect),
                )
                options = PredictOptions(InputOptions((str(copies),)), Path(out), network, people, output=output)
                predict_command.run(options, ClipOptions())

        variants = {
            "all files": lambda: predict(True),
            "numbers only": lambda: predict(False),
        }
        how = "with detection" if detect else "without detection"
        yield from timed_rows(f"predict, {count} photos, {how}", bench.compare(variants), count, True)
        if detector is not None:
            find, pixels = PersonDetector(detector), read_photo(picture).pixels
            yield from timed_rows("detector, a photo", bench.compare({"ours": lambda: find(pixels)}))


def _write_photo(path: Path) -> Path:
    cv2.imwrite(str(path), person(*PHOTO_SIZE)[..., ::-1])
    return path
