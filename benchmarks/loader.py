"""The loader against the published way of loading: samples a second, start-up seconds, memory.

    python benchmarks/loader.py                 everything; prints the tables of benchmarks/README.md
    python benchmarks/loader.py --people 30000  a smaller annotation file

All ways take turns (A B A B ...); figures are medians over the turns, ratios medians of the ratios within a turn.

Samples: pictures of the data sets' sizes, made from the example photographs; one process, one thread. The oracle
(`PublishedLoader`) does what the published loader does for each sample, in plain NumPy, OpenCV and PyTorch: whole
picture decoded, turned to float32, mirrored and warped, body layer for one body (dense matrices, one bone after the
other, a 4 x 4 matrix for each vertex), projection, fit check. The real code's figures, measured on another day, stand
beside it. Ours: `PersonDataset.batch`, as a worker calls it; the targets are made for 16 samples at once on the
device, here the CPU. Rates are per second of processor time, so that other work on the machine disturbs them little.

Start-up: a generated MS-COCO file and its fits; each measurement in a fresh process, processor time again. Memory of a
worker: what a forked process makes its own (`Private_Dirty`) by going through all annotations once.
"""

import argparse
import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import orjson
import torch

from i2l_meshnet.benchmarking.machine import memory
from i2l_meshnet.benchmarking.published import pose_plainly
from i2l_meshnet.benchmarking.subjects import made_up_body
from i2l_meshnet.benchmarking.turns import Turns, take_turns
from i2l_meshnet.bodies.linear import LinearBody
from i2l_meshnet.data.annotation import Fit, TableBuilder
from i2l_meshnet.data.augmentation import draw
from i2l_meshnet.data.cache import FOLDER as CACHE_FOLDER
from i2l_meshnet.data.dataset import PersonDataset
from i2l_meshnet.data.sources import ADAPTERS, Source, open_source
from i2l_meshnet.data.targets import CameraFitCheck, ImageFitCheck, TargetBuilder
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.skeletons import COCO, HUMAN36M, MANO, Skeleton

EXAMPLES = Path(__file__).parents[1] / "examples"
BATCH = 16
SEED = 11


@dataclasses.dataclass(frozen=True)
class Case:
    """A data set's pictures: (width, height), side of the box around a person, and the real published code's rate."""

    name: str
    size: tuple[int, int]
    side: int
    skeleton: Skeleton
    real: str
    three_d: bool = True


CASES = (
    Case("Human36M", (1000, 1002), 560, HUMAN36M, "30-34"),
    Case("MuCo", (2048, 2048), 1100, HUMAN36M, "10.5"),
    Case("MSCOCO", (640, 480), 300, COCO, "52-60", three_d=False),
    Case("PW3D", (1080, 1920), 800, HUMAN36M, "17-22"),
    Case("FreiHAND", (224, 224), 150, MANO, "~200"),
)


def made_up_source(case: Case, folder: Path, people: int) -> Source:
    """Pictures written to `folder` and annotations of one person in each."""
    generator = np.random.default_rng(SEED)
    photos = [cv2.imread(str(path)) for path in sorted(EXAMPLES.glob("*.jpg"))]
    hand = case.skeleton is MANO
    rows = TableBuilder(case.skeleton, ("made-up",), bones=16 if hand else 24, shapes=10, trusted_fits=hand)
    width, height = case.size
    for person in range(people):
        name = f"{case.name}{person}.jpg"
        picture = cv2.resize(photos[person % len(photos)], case.size, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / name), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
        x, y = (float(generator.uniform(0, side - case.side)) for side in case.size)
        joints = generator.normal(0, 0.3, (len(case.skeleton), 3)) + np.array([0, 0, 4])
        fit = Fit(generator.normal(0, 0.2, 48 if hand else 72), generator.normal(0, 1, 10), (0.0, 0.0, 4.0), "made-up")
        rows.add(
            where="made up",
            id=person,
            path=name,
            size=case.size,
            box=(x, y, case.side, case.side),
            prepared=True,
            focal=(1000, 1000),
            center=(width / 2, height / 2),
            joints_image=generator.uniform((x, y), (x + case.side, y + case.side), (len(case.skeleton), 2)),
            joints_camera=joints if case.three_d else None,
            fit=fit,
        )
    return Source(case.name, "train", folder, rows.build(folder), case.three_d)


class PublishedLoader:
    """One training sample after another as the published data set classes make them (facts in SPEC.md's terms)."""

    def __init__(
        self, source: Source, body: LinearBody, regressor: np.ndarray, depth_extent: float, mirror: bool
    ) -> None:
        self.source, self.body, self.regressor = source, body, regressor
        self.depth_extent, self.mirror = depth_extent, mirror
        arrays = source.table.arrays
        self.rows = [
            {name: np.array(values[i]) for name, values in arrays.items() if not name.startswith("path")}
            for i in range(len(source))
        ]

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        row = {name: values.copy() for name, values in self.rows[index].items()}
        image = cv2.imread(str(self.source.image_path(index)), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        image = image[:, :, ::-1].astype(np.float32)
        change = draw(random.random, lambda: float(np.random.randn()), self.mirror)  # noqa: NPY002, as published
        width = image.shape[1]
        x, y, w, h = row["box"]
        center = np.array([x + w / 2, y + h / 2])
        if change.mirrored:
            image = image[:, ::-1, :]
            center[0] = width - center[0] - 1
        cos, sin = np.cos(change.rotation), np.sin(change.rotation)
        down, right = np.array([-sin, cos]) * h * change.scale / 2, np.array([cos, sin]) * w * change.scale / 2
        affine = cv2.getAffineTransform(
            np.float32([center, center + down, center + right]), np.float32([[128, 128], [128, 256], [256, 128]])
        )
        patch = cv2.warpAffine(image, affine, (256, 256), flags=cv2.INTER_LINEAR).astype(np.float32)
        patch = np.clip(patch * np.array(change.colour)[None, None], 0, 255)
        picture = np.ascontiguousarray(patch.transpose(2, 0, 1).astype(np.float32)) / 255.0

        joints, camera = row["joints_image"].copy(), row["joints_camera"].copy()
        visible = row["visible"].astype(np.float32)[:, None]
        if change.mirrored:
            order = list(self.source.table.skeleton.mirror_permutation)
            joints[:, 0] = width - 1 - joints[:, 0]
            joints, camera, visible = joints[order], camera[order] * [-1, 1, 1], visible[order]
        joints, truncation = self.lixels(joints, camera[:, 2] - camera[0, 2], affine)

        pose = row["pose"]
        if change.mirrored and self.body.bone_mirror is not None:
            pose = pose[list(self.body.bone_mirror)] * [1, -1, -1]
        with torch.no_grad():
            fit = (torch.from_numpy(np.float32(values))[None] for values in (pose, row["shape"], row["translation"]))
            points = pose_plainly(self.body, *fit)[0].numpy()
        pixels = points[:, :2] / points[:, 2:] * row["focal"] + row["center"]
        fitted, fit_truncation = self.lixels(pixels, points[:, 2] - points[-1, 2], affine)
        read = np.dot(self.regressor, points[: self.regressor.shape[1]])
        error = np.sqrt(
            np.sum((read - read.mean(0) - camera[: len(read)] + camera[: len(read)].mean(0)) ** 2, 1)
        ).mean()
        turn = cv2.Rodrigues(np.array([0, 0, -change.rotation]))[0]
        root = cv2.Rodrigues(np.dot(turn, cv2.Rodrigues(row["pose"][0])[0]))[0]
        return {
            "img": picture,
            "orig_joint_img": joints.astype(np.float32),
            "orig_joint_trunc": (truncation[:, None] * visible).astype(np.float32),
            "orig_joint_cam": np.dot(turn, (camera - camera[:1]).T).T.astype(np.float32),
            "fit_img": fitted.astype(np.float32),
            "fit_trunc": fit_truncation[:, None].astype(np.float32),
            "pose_param": np.concatenate([root.ravel(), row["pose"][1:].ravel()]).astype(np.float32),
            "shape_param": row["shape"],
            "is_valid_fit": np.float32(error < 25),
        }

    def lixels(self, pixels: np.ndarray, depth: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates on the grid and whether they lie on it."""
        moved = np.dot(affine, np.concatenate([pixels, np.ones_like(pixels[:, :1])], 1).T).T / 4
        grid = np.concatenate([moved, ((depth / (self.depth_extent / 2) + 1) / 2 * 64)[:, None]], 1)
        return grid, ((grid >= 0) & (grid < 64)).all(1)


def compare_samples(count: int, turns: int) -> None:
    """Prints the rows of the table of samples a second."""
    for case in CASES:
        hand = case.skeleton is MANO
        body = made_up_body(hand)
        regressor = np.random.default_rng(SEED).dirichlet(np.ones(body.joint_regressor.shape[1]), 17)
        extent = 0.3 if hand else 2.0
        with tempfile.TemporaryDirectory() as folder:
            source = made_up_source(case, Path(folder), count)
            published = PublishedLoader(source, body, regressor, extent, mirror=not hand)
            dataset = PersonDataset(source, augment=True, mirror=not hand, seed=SEED)
            whole = PersonDataset(source, augment=True, mirror=not hand, seed=SEED, full_decode=True)
            matrix = torch.from_numpy(regressor).float()
            checks = (None, None) if hand else (CameraFitCheck(matrix), ImageFitCheck(matrix))
            build = TargetBuilder([body], LixelGrid(depth_extent=extent), source.table.skeleton, *checks)
            batches = [range(start, start + BATCH) for start in range(0, count, BATCH)]
            batch = dataset.batch(batches[0])
            ways: dict[str, Callable[[], object]] = {
                "oracle": lambda load=published: [load[index] for index in range(count)],
                "ours": lambda load=dataset, batches=batches: [load.batch(numbers) for numbers in batches],
                "whole": lambda load=whole, batches=batches: [load.batch(numbers) for numbers in batches],
                "targets": lambda build=build, batch=batch, batches=batches: [
                    (build(batch), batch.network_input()) for _ in batches
                ],
            }
            times = take_turns(ways, turns, time.process_time)
        seconds = {
            **times.seconds,
            "both": [a + b for a, b in zip(times.seconds["ours"], times.seconds["targets"], strict=True)],
        }
        times = Turns(seconds)
        cells = (
            f"{case.name} {case.size[0]} x {case.size[1]}",
            case.real,
            f"{count / times.median('oracle'):.0f}",
            *(f"{count / times.median(way):.0f} ({times.ratio(way):.1f}x)" for way in ("ours", "whole")),
            f"{1000 * times.median('targets') / count:.1f} ms",
            f"{count / times.median('both'):.0f} ({times.ratio('both'):.1f}x)",
        )
        print(f"| {' | '.join(cells)} |", flush=True)


def write_annotations(root: Path, people: int, kinds: int = 500) -> None:
    """A MS-COCO keypoint file of `people` annotations, two on each picture, and a fit for each.

    There are `kinds` different people, over and over: what is read is as long and as much as if all differed.
    """
    generator = np.random.default_rng(SEED)
    folder = root / "MSCOCO" / "annotations"
    folder.mkdir(parents=True)
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "width": 640, "height": 480} for i in range((people + 1) // 2)]
    persons, fits = [], []
    for _ in range(kinds):
        points = np.concatenate([generator.uniform(20, 400, (17, 2)).round(), np.full((17, 1), 2)], 1)
        person = {
            "category_id": 1,
            "iscrowd": 0,
            "num_keypoints": 17,
            "bbox": [50, 40, 200, 300],
            "keypoints": points.ravel().astype(int).tolist(),
        }
        fit = {
            "smpl_param": {
                "pose": generator.normal(0, 0.3, 72).round(6).tolist(),
                "shape": generator.normal(0, 1, 10).round(6).tolist(),
                "trans": [0.1, 0.2, 9.0],
            },
            "cam_param": {"focal": [1500.0, 1500.0], "princpt": [320.0, 240.0]},
        }
        persons.append(orjson.dumps(person)[1:])
        fits.append(orjson.dumps(fit))
    with (folder / "person_keypoints_train2017.json").open("wb") as file:
        file.write(b'{"images":' + orjson.dumps(images) + b',"annotations":[')
        file.write(b",".join(b'{"id":%d,"image_id":%d,' % (i, i // 2) + persons[i % kinds] for i in range(people)))
        file.write(b'],"categories":[]}')
    with (folder / "coco_smplifyx_train.json").open("wb") as file:
        file.write(b"{" + b",".join(b'"%d":' % i + fits[i % kinds] for i in range(people)) + b"}")


def load_published(root: Path) -> list[dict[str, Any]]:
    """The annotation list as the published data set class builds it."""
    folder = root / "MSCOCO" / "annotations"
    with (folder / "person_keypoints_train2017.json").open() as file:
        content = json.load(file)
    images = {image["id"]: image for image in content["images"]}
    with (folder / "coco_smplifyx_train.json").open() as file:
        fits = json.load(file)
    rows = []
    for annotation in content["annotations"]:
        image = images[annotation["image_id"]]
        if annotation["iscrowd"] or annotation["num_keypoints"] == 0:
            continue
        x, y, w, h = annotation["bbox"]
        side = max(w, h) * 1.25
        box = np.array([x + w / 2 - side / 2, y + h / 2 - side / 2, side, side])
        joints = np.array(annotation["keypoints"], dtype=np.float32).reshape(-1, 3)
        joints = np.concatenate((joints, (joints[11] + joints[12])[None] * 0.5))
        valid = (joints[:, 2].copy().reshape(-1, 1) > 0).astype(np.float32)
        joints[:, 2] = 0
        rows.append(
            {
                "img_path": f"../data/MSCOCO/images/train2017/{image['file_name']}",
                "img_shape": (image["height"], image["width"]),
                "bbox": box,
                "joint_img": joints,
                "joint_valid": valid,
                "smplify_result": fits.get(str(annotation["id"])),
            }
        )
    return rows


def measure_start(way: str, root: Path) -> None:
    """Opens the annotations, then goes through them in a forked process; prints the measurements as JSON."""
    before = memory("Rss")
    start = time.process_time()
    if way == "published":
        rows = load_published(root)
        touch: Callable[[range], Any] = lambda indices: [{**rows[index]} for index in indices]  # noqa: E731
        count = len(rows)
    else:
        source = open_source(ADAPTERS["MSCOCO"], "MSCOCO", root, "train")
        touch, count = source.table.annotations, len(source)
    seconds, resident = time.process_time() - start, memory("Rss") - before
    private = memory("Private_Dirty")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        at_first = memory("Private_Dirty")
        for start in range(0, count, BATCH):
            touch(range(start, min(start + BATCH, count)))
        os.write(writing, f"{memory('Private_Dirty') - at_first}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    worker = float(os.read(reading, 100))
    print(json.dumps({"people": count, "seconds": seconds, "resident": resident, "private": private, "worker": worker}))


def compare_starts(people: int, turns: int) -> None:
    """Prints the rows of the table of start-up."""
    ways = {
        "published way": "published",
        "ours, first start (parses, writes the cache)": "ours",
        "ours, later starts": "ours",
    }
    found: dict[str, list[dict[str, float]]] = {title: [] for title in ways}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_annotations(root, people)
        for _ in range(turns):
            shutil.rmtree(root / "MSCOCO" / CACHE_FOLDER, ignore_errors=True)
            for title, way in ways.items():
                command = [sys.executable, __file__, "--measure", way, "--root", str(root)]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found[title].append(json.loads(done.stdout))
                print(f"{title}: {done.stdout.strip()}", file=sys.stderr)

    def column(key: str) -> Turns:
        return Turns({title: [facts[key] for facts in runs] for title, runs in found.items()})

    start, resident, worker = (column(key) for key in ("seconds", "resident", "worker"))
    for title in ways:
        cells = (
            f"{1000 * start.median(title):,.1f} ms ({start.ratio(title):,.1f}x)",
            f"{resident.median(title):.1f} MiB",
            f"{worker.median(title):.1f} MiB ({worker.ratio(title):.0f}x)",
        )
        print(f"| {title} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=300_000, help="annotations of the start-up measurement")
    parser.add_argument("--samples", type=int, default=64, help="samples of each data set; 0: start-up only")
    parser.add_argument("--turns", type=int, default=5, help="of the samples")
    parser.add_argument("--start-turns", type=int, default=3, help="of the start-up; its published way takes 20 s each")
    parser.add_argument("--measure", choices=("published", "ours"), help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure_start(options.measure, options.root)
        return
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if options.samples:
        print(
            "| pictures | real published code | oracle | ours | ours, whole pictures decoded "
            "| targets, a sample in a batch of 16 | ours with targets |\n|---|---|---|---|---|---|---|",
            flush=True,
        )
        compare_samples(options.samples, options.turns)
    print(f"\n| {options.people:,} annotations | start | resident | a worker's own |")
    print("|---|---|---|---|", flush=True)
    compare_starts(options.people, options.start_turns)


if __name__ == "__main__":
    main()
