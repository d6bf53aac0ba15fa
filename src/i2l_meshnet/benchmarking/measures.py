"""What `i2l-meshnet bench` measures, one function a group of rows."""

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

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from i2l_meshnet import assets
from i2l_meshnet.benchmarking import fresh
from i2l_meshnet.benchmarking.published import align_plainly, pose_plainly
from i2l_meshnet.benchmarking.rows import Row, timed_rows
from i2l_meshnet.benchmarking.runtimes import exported_ways
from i2l_meshnet.benchmarking.subjects import SEED, made_up_body, made_up_network, person
from i2l_meshnet.benchmarking.turns import Turns, take_turns
from i2l_meshnet.bodies import Body, BodyParams, load_body
from i2l_meshnet.errors import InputError
from i2l_meshnet.geometry.alignment import similarity_align
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.crop import make_crop
from i2l_meshnet.geometry.rotations import axis_angle_to_matrix
from i2l_meshnet.models.exported import ExportedNetwork, import_openvino
from i2l_meshnet.models.inference import for_inference
from i2l_meshnet.models.loading import default_weights, load_network
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.models.output import LixelNetwork
from i2l_meshnet.models.reference import plain_copy
from i2l_meshnet.prediction import job
from i2l_meshnet.prediction.detect import PersonDetector
from i2l_meshnet.prediction.images import read_photo
from i2l_meshnet.prediction.job import PredictOptions
from i2l_meshnet.rendering.raster import rasterize

Ways = Mapping[str, Callable[[], object]]
PUBLISHED = "published"
COMMAND = "import sys; from i2l_meshnet.cli import main; sys.exit(main())"
PHOTO_SIZE = (1024, 1536)
"""Height and width of the made-up photo."""


@dataclasses.dataclass(frozen=True)
class Bench:
    """How everything is measured. turns: at most, and so many seconds a comparison. clock: wall or processor time."""

    device: torch.device
    turns: int
    budget: float
    clock: Callable[[], float]
    batches: tuple[int, ...]

    def compare(self, ways: Ways) -> Turns:
        """Times the ways in turn."""
        wait = partial(torch.cuda.synchronize, self.device) if self.device.type == "cuda" else None
        return take_turns(ways, self.turns, self.clock, wait, self.budget)


def published_network(bench: Bench, weights: Path | None, body_directory: Path | None) -> Iterator[Row]:
    """Forward passes of the published network, made up or of a checkpoint or snapshot: the oracle and ours."""
    network, _ = _published(weights, body_directory)
    ready = {PUBLISHED: plain_copy(network), "fp32": for_inference(network), "bf16": for_inference(network, "bf16")}
    yield from _forward_passes(bench, "published network", ready)


def default_network(bench: Bench) -> Iterator[Row]:
    """Forward passes of the network that ships; its peer is itself as it was trained."""
    network, _, _ = load_network(default_weights())
    ready = {"as trained": network, "fp32": for_inference(network), "bf16": for_inference(network, "bf16")}
    yield from _forward_passes(bench, "default network", ready)


def runtimes(bench: Bench, weights: Path | None, body_directory: Path | None) -> Iterator[Row]:
    """Forward passes of both networks by other runtimes beside PyTorch; CPU. None where these are not installed."""
    try:
        import_openvino()
    except InputError as error:
        print(f"left out: {error}", file=sys.stderr)
        return
    bench = dataclasses.replace(bench, device=torch.device("cpu"))
    networks = (
        ("published network", PUBLISHED, *_published(weights, body_directory)),
        ("default network", "as trained", *load_network(default_weights())[:2]),
    )
    for what, peer, network, body in networks:
        with tempfile.TemporaryDirectory() as folder:
            ready = {peer: plain_copy(network), "fp32": for_inference(network)}
            yield from _forward_passes(
                bench, f"{what}, runtimes", {**ready, **exported_ways(network, body, Path(folder))}
            )


def _published(weights: Path | None, body_directory: Path | None) -> tuple[MeshNet, Body]:
    """A published network, made up or of a checkpoint or snapshot, and its body."""
    if weights is not None:
        return load_network(weights, body_directory)[:2]
    body = made_up_body()
    return made_up_network(body), body


@torch.inference_mode()
def _forward_passes(bench: Bench, what: str, networks: Mapping[str, MeshNet | ExportedNetwork]) -> Iterator[Row]:
    networks = {
        way: network.to(bench.device) if isinstance(network, MeshNet) else network for way, network in networks.items()
    }
    first = next(iter(networks))
    height, width = networks[first].grid.crop_size
    crop = torch.from_numpy(person(height, width)).to(bench.device).permute(2, 0, 1).float() / 255

    def crops(way: str, batch: int) -> Float[Tensor, "b 3 h w"]:
        """Contiguous for the peer, as it was published; channels last for ours, as `predict` has them."""
        image = crop.expand(batch, -1, -1, -1).contiguous()
        return image if way == first else image.contiguous(memory_format=torch.channels_last)

    placed = {way: _in_space(network, crops(way, 1)) for way, network in networks.items()}
    deviations = {way: 1000 * float((found - placed[first]).norm(dim=-1).max()) for way, found in placed.items()}
    del deviations[first]
    work = {way: work_of(network, crops(way, 1)) for way, network in networks.items() if isinstance(network, MeshNet)}
    for batch in bench.batches:
        turns = bench.compare({way: partial(network, crops(way, batch)) for way, network in networks.items()})
        yield from timed_rows(f"{what}, batch {batch}", turns, batch, batch > 1, deviations, work)


def _in_space(network: LixelNetwork, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b v 3"]:
    """The vertices of people of 2 m, 5 m away from a camera of 1,000 px, as `predict` crops them; m."""
    vertices = network(image).vertices.cpu()
    height, width = network.grid.crop_size
    people = len(vertices)
    box = torch.tensor([0.0, 0.0, 500.0 * width / height, 500.0]).expand(people, 4)
    camera = Camera(torch.full((people, 2), 1000.0), torch.full((people, 2), 250.0))
    crop = make_crop(box, 500.0, (height, width))
    return network.grid.to_camera(vertices, crop, camera, torch.full((people,), 5.0))


@torch.inference_mode()
def work_of(network: MeshNet, image: Float[Tensor, "1 3 h w"]) -> float:
    """GFLOP (two for each multiplication with addition) of one forward pass."""
    from torch.utils.flop_counter import FlopCounterMode  # takes a second

    with FlopCounterMode(display=False) as counter:
        network(image)
    return counter.get_total_flops() / 1e9


def pass_memory(bench: Bench) -> Iterator[Row]:
    """What a forward pass of the published network adds to memory at its peak, each in a process of its own; CPU."""
    for batch in bench.batches:
        found = {way: fresh.measure("memory", way, str(batch)) for way in (PUBLISHED, "fp32", "bf16")}
        for way, value in found.items():
            peer = None if way == PUBLISHED else PUBLISHED
            times = None if peer is None else found[peer] / value
            yield Row(f"memory of a pass, batch {batch}", way, value, value, value, "MiB", None, peer, times)


def cold_start(photo: Path | None) -> Iterator[Row]:
    """From nothing to a mesh in Python, and to all result files of the command; wall time, files in the cache."""
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


def _seconds(what: str, way: str, values: list[float]) -> Row:
    return Row(what, way, statistics.median(values), min(values), max(values), "s")


def body_layer(bench: Bench, batch: int = 16) -> Iterator[Row]:
    """Posing bodies of SMPL's size against the reference implementation's way, one body after the other; CPU."""
    body, generator = made_up_body(), torch.Generator().manual_seed(SEED)
    pose = torch.randn(batch, len(body.bones), 3, generator=generator) * 0.3
    shape = torch.randn(batch, 10, generator=generator)
    shift = torch.zeros(batch, 3)
    params = BodyParams(axis_angle_to_matrix(pose), shape, shift)

    def plainly() -> Tensor:
        bodies = [pose_plainly(body, pose[i : i + 1], shape[i : i + 1], shift[:1]) for i in range(batch)]
        return torch.cat(bodies)[:, : len(body.template)]

    with torch.inference_mode():
        deviation = 1000 * float((body(params).vertices - plainly()).norm(dim=-1).max())
        turns = bench.compare({"one by one": plainly, "ours": lambda: body(params)})
    yield from timed_rows(f"body layer, {batch} bodies", turns, batch, deviations={"ours": deviation})


def procrustes(bench: Bench, batch: int = 32) -> Iterator[Row]:
    """Aligning meshes of SMPL's size against NumPy, one after the other; CPU."""
    generator = torch.Generator().manual_seed(SEED)
    source = torch.randn(batch, 6890, 3, generator=generator) * 0.3
    target = source + 0.05 * torch.randn(source.shape, generator=generator)
    pairs = list(zip(source.numpy(), target.numpy(), strict=True))

    def plainly() -> list[np.ndarray]:
        return [align_plainly(*pair) for pair in pairs]

    difference = similarity_align(source, target) - torch.from_numpy(np.stack(plainly()))
    turns = bench.compare({"NumPy, one by one": plainly, "ours": lambda: similarity_align(source, target)})
    deviation = 1000 * float(difference.norm(dim=-1).max())
    yield from timed_rows(f"Procrustes, {batch} meshes", turns, batch, deviations={"ours": deviation})


def rendering(bench: Bench, side: int = 1024) -> Iterator[Row]:
    """The rasteriser on one body that fills the picture; CPU."""
    body = load_body("anny")
    points = body(body.rest_params(1)).vertices[0, :, [0, 2, 1]].numpy()
    points = points - points.min(0)
    points = points / points.max() * (side - 1)
    points[:, 2] += 1
    faces = body.faces.numpy()
    turns = bench.compare({"ours": lambda: rasterize(points, faces, (side, side))})
    yield from timed_rows(f"rasteriser, a body in {side} x {side}", turns)


def whole_path(bench: Bench, photo: Path | None, count: int) -> Iterator[Row]:
    """`predict` on copies of a photo, all of its files written; and the detector alone, if it has been fetched."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        picture = photo or _write_photo(folder / "photo.jpg")
        copies = folder / "copies"
        copies.mkdir()
        for number in range(count):
            (copies / f"{number}{picture.suffix}").write_bytes(picture.read_bytes())
        detector = assets.find("detector")
        detect = photo is not None and detector is not None

        def predict(precision: str, pictures: bool) -> None:
            with tempfile.TemporaryDirectory(dir=folder) as out, contextlib.redirect_stdout(io.StringIO()):
                formats = PredictOptions.formats if pictures else ()
                options = PredictOptions((str(copies),), Path(out), formats=formats, pictures=pictures, detect=detect)
                job.run(dataclasses.replace(options, precision=precision, device=bench.device.type))

        ways = {
            "fp32": lambda: predict("fp32", True),
            "bf16": lambda: predict("bf16", True),
            "fp32, numbers only": lambda: predict("fp32", False),
        }
        how = "with detection" if detect else "without detection"
        yield from timed_rows(f"predict, {count} photos, {how}", bench.compare(ways), count, True)
        if detector is not None:
            find, pixels = PersonDetector(detector), read_photo(picture).pixels
            yield from timed_rows("detector, a photo", bench.compare({"ours": lambda: find(pixels)}))


def _write_photo(path: Path) -> Path:
    cv2.imwrite(str(path), person(*PHOTO_SIZE)[..., ::-1])
    return path
