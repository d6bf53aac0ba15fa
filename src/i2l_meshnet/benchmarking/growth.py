"""How cost grows: with the batch, people in a picture, pictures, vertices, and the pictures' size."""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import UInt8

from i2l_meshnet import MeshPredictor
from i2l_meshnet.benchmarking import fresh
from i2l_meshnet.benchmarking.rows import Row, Unit
from i2l_meshnet.benchmarking.subjects import made_up_body, made_up_network, person, pictures
from i2l_meshnet.benchmarking.turns import Turns
from i2l_meshnet.errors import InputError
from i2l_meshnet.files import atomic_path
from i2l_meshnet.models.inference import for_inference
from i2l_meshnet.models.lixel_head import LixelHead
from i2l_meshnet.models.meshnet import MeshNet
from i2l_meshnet.prediction.boxes import PersonBox
from i2l_meshnet.prediction.intrinsics import Intrinsics

BATCHES = (1, 2, 4, 8, 16, 32)
PEOPLE = (1, 2, 4, 8, 16, 32)
PICTURES = (1, 10, 100, 200, 1000, 10_000)
VERTICES = (1229, 3445, 6890, 13_718)
MEGAPIXELS = (0.3, 1, 3, 6, 12, 24)

Compare = Callable[[dict[str, Callable[[], object]]], Turns]


@dataclasses.dataclass(frozen=True)
class Curve:
    """Cost over what it grows with.

    file: of the plot; curves of the same file share it. what: is measured. axis: what x counts. points: x, median,
    least and greatest value.
    """

    file: str
    what: str
    axis: str
    unit: Unit
    points: tuple[tuple[float, float, float, float], ...]

    def rows(self) -> Iterator[Row]:
        """A row for each point."""
        for x, median, low, high in self.points:
            yield Row(self.what, f"{self.axis}: {x:,g}", median, low, high, self.unit)


def growth(compare: Compare, most_pictures: int) -> Iterator[Curve]:
    """All curves; on the CPU. compare: times ways by turns (`Bench.compare`)."""
    yield from _batches(compare)
    yield _people(compare)
    yield from _pictures(most_pictures)
    yield _vertices(compare)
    yield _sizes(compare)


def _timed(
    compare: Compare, file: str, what: str, axis: str, ways: dict[float, Callable[[], object]], per: bool = False
) -> Curve:
    """Milliseconds of each way. per: of one thing, of x that are done at once."""
    turns = compare({str(x): way for x, way in ways.items()})
    points = []
    for x in ways:
        values = (turns.median(str(x)), *turns.spread(str(x)))
        median, low, high = (1000 * value / (x if per else 1) for value in values)
        points.append((x, median, low, high))
    return Curve(file, what, axis, "ms", tuple(points))


def _batches(compare: Compare) -> Iterator[Curve]:
    networks: dict[str, MeshNet] = {"published network, a crop": for_inference(made_up_network(made_up_body()))}
    default = MeshPredictor.load(device="cpu", detect=False).network
    assert isinstance(default, MeshNet)
    networks["default network, a crop"] = default
    for what, network in networks.items():
        height, width = network.grid.crop_size
        crops = pictures(max(BATCHES))[..., :height, :width].contiguous(memory_format=torch.channels_last)
        ways: dict[float, Callable[[], object]] = {
            float(x): partial(_without_gradients, network, crops[:x]) for x in BATCHES
        }
        yield _timed(compare, "growth_batch", what, "batch", ways, per=True)


@torch.inference_mode()
def _without_gradients(network: torch.nn.Module, image: torch.Tensor) -> object:
    return network(image)


def _people(compare: Compare) -> Curve:
    predictor, picture = MeshPredictor.load(device="cpu", detect=False), person(1024, 1536)
    camera, _ = Intrinsics().camera(1536, 1024, None)
    boxes = [PersonBox((400.0 + 10 * (i % 8), 60.0 + 5 * (i // 8), 600.0, 900.0)) for i in range(max(PEOPLE))]
    ways: dict[float, Callable[[], object]] = {
        float(x): partial(predictor.predict_batch, [picture], [boxes[:x]], [camera]) for x in PEOPLE
    }
    return _timed(compare, "growth_people", "people of one picture placed in space", "people", ways)


def _pictures(most: int) -> Iterator[Curve]:
    """`predict` without detection and drawing on copies of a picture, each number in a process of its own."""
    seconds, memory = [], []
    counts = sorted({count for count in PICTURES if count < most} | {most})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write(folder / "photo.jpg", person(768, 1024))
        copies = folder / "copies"
        copies.mkdir()
        for count in counts:
            for number in range(count):
                copy = copies / f"{number}.jpg"
                if not copy.exists():
                    copy.hardlink_to(folder / "photo.jpg")
            with tempfile.TemporaryDirectory(dir=folder) as out:
                took, peak = fresh.values("pictures", str(copies), out)
            seconds.append((float(count), took, took, took))
            memory.append((float(count), peak, peak, peak))
    yield Curve("growth_pictures", "predict, numbers only, in all", "pictures", "s", tuple(seconds))
    yield Curve("growth_memory", "peak memory of predict", "pictures", "MiB", tuple(memory))


def _vertices(compare: Compare) -> Curve:
    torch.manual_seed(0)
    deep = torch.rand(1, 2048, 8, 8).contiguous(memory_format=torch.channels_last)
    ways: dict[float, Callable[[], object]] = {
        float(x): partial(_without_gradients, LixelHead(2048, x).eval(), deep) for x in VERTICES
    }
    return _timed(compare, "growth_vertices", "mesh head, a crop", "vertices", ways)


def _sizes(compare: Compare) -> Curve:
    predictor = MeshPredictor.load(device="cpu")
    with tempfile.TemporaryDirectory() as name:
        ways: dict[float, Callable[[], object]] = {}
        for x in MEGAPIXELS:
            height = round((x * 1e6 / 1.5) ** 0.5)
            path = Path(name) / f"{x}.jpg"
            _write(path, cv2.resize(person(512, 768), (round(1.5 * height), height)))
            ways[float(x)] = partial(predictor, path)
        return _timed(compare, "growth_size", "a picture read and its people placed", "Mpx", ways)


def _write(path: Path, picture: UInt8[np.ndarray, "h w 3"]) -> None:
    # As smooth as a photo, so that it is decoded as fast.
    cv2.imwrite(str(path), cv2.GaussianBlur(picture[..., ::-1], (0, 0), 2))


def draw_growth(curves: list[Curve], folder: Path) -> None:
    """A plot of each curve as a PNG. Raises InputError where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError("plots need matplotlib: pip install 'i2l-meshnet[plots]'") from error
    folder.mkdir(parents=True, exist_ok=True)
    for file in dict.fromkeys(curve.file for curve in curves):
        figure = Figure(figsize=(5, 3.2), layout="constrained")
        axes = figure.subplots()
        for curve in (curve for curve in curves if curve.file == file):
            x, median, low, high = np.array(curve.points).T
            axes.errorbar(x, median, (median - low, high - median), marker="o", capsize=3, label=curve.what)
            axes.set_xlabel(curve.axis)
            axes.set_ylabel(curve.unit)
        axes.set_xscale("log")
        if file == "growth_pictures":
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        axes.legend()
        with atomic_path(folder / f"{file}.png") as temporary:
            figure.savefig(temporary, dpi=110)
