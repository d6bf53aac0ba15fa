"""Opening the annotations of a training set against the published way: seconds, memory, a worker's own memory.

    python benchmarks/annotations.py                 prints the table of benchmarks/README.md
    python benchmarks/annotations.py --people 30000  a smaller annotation file

A generated MS-COCO file and its fits; each measurement in a fresh process, processor time; ways take turns, figures are
medians, ratios medians of the ratios within a turn. Memory of a worker: what a forked process makes its own
(`Private_Dirty`) by going through all annotations once. Samples a second are measured by `python benchmarks/run.py`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from i2l_meshnet.data.cache import FOLDER as CACHE_FOLDER
from i2l_meshnet.data.sources import open_source
from machine import memory
from subjects import SEED
from turns import Turns

BATCH = 16


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
        source = open_source("MSCOCO", root, "train")
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
    parser.add_argument("--people", type=int, default=300_000, help="annotations")
    parser.add_argument("--turns", type=int, default=3, help="the published way takes 20 s each")
    parser.add_argument("--measure", choices=("published", "ours"), help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure_start(options.measure, options.root)
        return
    print(f"| {options.people:,} annotations | start | resident | a worker's own |\n|---|---|---|---|", flush=True)
    compare_starts(options.people, options.turns)


if __name__ == "__main__":
    main()
