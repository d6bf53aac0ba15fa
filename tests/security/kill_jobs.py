"""The jobs that these tests kill, run twice at once and run on a full disk.

Networks and bodies are small substitutes, so that a job takes a moment. The code that reads, resumes and writes is what
users run. Every job can be run again until it succeeds.
"""

import contextlib
import dataclasses
import functools
import json
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

TESTS = Path(__file__).parents[1]
for folder in (*(TESTS / name for name in ("", "training", "video", "data")), TESTS.parent / "benchmarks"):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))

import body_files  # noqa: E402
import filmed  # noqa: E402
import test_convert  # noqa: E402
import tiny_training  # noqa: E402
from predict_options import clip_options, predict_options  # noqa: E402

from i2l_lab.synthetic import generate  # noqa: E402
from i2l_lab.synthetic.generate import PictureOptions, generate_pictures  # noqa: E402
from i2l_lab.synthetic.pictures import Picture, PictureMaker  # noqa: E402
from i2l_meshnet.bodies import load_body  # noqa: E402
from i2l_meshnet.bodies.base import Body  # noqa: E402
from i2l_meshnet.data.convert import (  # noqa: E402
    Pw3dOptions,
    SurrealOptions,
    convert_pw3d,
    convert_surreal,
    surreal,
)
from i2l_meshnet.data.sources import open_source  # noqa: E402
from i2l_meshnet.errors import UserError  # noqa: E402
from i2l_meshnet.fleet import predict_table, row_maker  # noqa: E402
from i2l_meshnet.prediction.predictor import MeshPredictor  # noqa: E402
from i2l_meshnet.training import train as training_job  # noqa: E402
from i2l_meshnet.video import pipeline  # noqa: E402
from i2l_meshnet.video import predict as predict_clips  # noqa: E402
from i2l_meshnet.viewing import rig  # noqa: E402
from i2l_meshnet.viewing.rig import RigOptions  # noqa: E402

FRAMES, STRETCH = 24, 6


def files(folder: Path) -> dict[str, bytes]:
    """The content of every file in a folder and its subfolders, hidden files included. Empty folders count too."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b"folder"
        for path in sorted(folder.rglob("*"))
        if path.is_file() or not any(path.iterdir())
    }


@dataclasses.dataclass(frozen=True)
class Job:
    """A command.

    prepare: writes its input into a folder, which is copied for every run. run: returns the exit code. result: what
    must be the same however often the job was killed. warms: whether it may run in the process that is forked later.
    """

    name: str
    prepare: Callable[[Path], None]
    run: Callable[[Path], int]
    result: Callable[[Path], object] = files
    warms: bool = True


@dataclasses.dataclass
class _Detector:
    """Finds people. max_people: in an image."""

    find: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    max_people: int = 100

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.find(pixels)


class _Onlooker(filmed.Stage):
    """A predictor of image batches."""

    hands = None

    def __init__(self, body: Body, walkers: list[filmed.Walker]) -> None:
        super().__init__(body, walkers)
        self.detector = _Detector(self._detector)

    def predict_batch(self, images, people, cameras, root_depth=None):
        pairs = zip(images, people, strict=True)
        return [super(_Onlooker, self).predict_batch([image], [boxes], cameras)[0] for image, boxes in pairs]


@contextlib.contextmanager
def stand_ins() -> Iterator[None]:
    """Replace networks, detectors and makers of pictures by small ones."""
    stage = _Onlooker(load_body("toy"), [filmed.Walker(lambda time: (time / 3 - 0.4, -0.95, 4.0))])
    with tiny_training.slim_networks(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(MeshPredictor, "load", lambda *arguments, **options: stage)
        patch.setattr(row_maker.assets, "find", lambda name: None)
        patch.setattr(predict_table.assets, "find", lambda name: Path("detector"))
        patch.setattr(row_maker.assets, "ensure", lambda name: Path(name))
        patch.setattr(row_maker, "PersonDetector", lambda *arguments: stage.detector)
        patch.setattr(predict_table.TableFolder, "__init__", _small_parts(predict_table.TableFolder.__init__))
        patch.setattr(pipeline, "STRETCH", STRETCH)
        patch.setattr(surreal, "load_body", functools.cache(load_body))
        patch.setattr(generate.assets, "ensure", lambda name: Path(name))
        patch.setattr(generate, "make_picture_maker", lambda *arguments: _Maker())
        generate._process_maker.cache_clear()
        yield
        generate._process_maker.cache_clear()


def _small_parts(start: Callable[..., None]) -> Callable[..., None]:
    return lambda self, address: start(self, address, 2)


class _Maker(PictureMaker):
    """Makes noise that depends only on seed and number."""

    def __init__(self) -> None:
        """Skip the base class, which loads a body and assets."""

    def make(self, seed: int, index: int) -> Picture:
        generator = np.random.default_rng([seed, index])
        pixels = cv2.GaussianBlur(generator.integers(0, 255, (96, 96, 3), np.uint8), (5, 5), 0)
        return Picture(
            jpeg=cv2.imencode(".jpg", pixels)[1].reshape(-1),
            vertices=np.zeros((1, 3), np.float32),
            joints=np.zeros((1, 3), np.float32),
            box=generator.random(4).astype(np.float32),
            focal=np.full(2, 100, np.float32),
            center=np.full(2, 48, np.float32),
            params=load_body("toy").rest_params(),
        )


def start(job: Job, folder: Path, log: Path | None = None) -> int:
    """Run a job in a forked process with its own process group. Returns its number.

    The output goes to `log` (default: `<folder>.log`), temporary files go to `<folder>/tmp`.
    """
    pid = os.fork()
    # In both processes, because either may run first.
    with contextlib.suppress(OSError):
        os.setpgid(pid, 0)
    if pid:
        return pid
    code = 70
    try:
        out = os.open(log or folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(out, 1)
        os.dup2(out, 2)
        # pytest has replaced the streams.
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
        os.environ["TMPDIR"] = str(folder / "tmp")
        tempfile.tempdir = None
        code = job.run(folder)
    except UserError as error:
        print(error, file=sys.stderr)
        code = 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(pid: int) -> int:
    """Wait for a process. Returns its exit code, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def fresh(template: Path, folder: Path) -> None:
    """Replace the last run by a copy of the job's input, with the files' times."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.with_suffix(".log").unlink(missing_ok=True)
    shutil.copytree(template, folder)
    (folder / "tmp").mkdir()


def _training_files(folder: Path) -> dict[str, object]:
    """All files, without the speed in the log and what Python's multiprocessing leaves in the temporary folder."""
    shutil.rmtree(folder / "tmp", ignore_errors=True)
    found: dict[str, object] = {**files(folder)}
    log = folder / "output" / "log" / "lixel.csv"
    if log.exists():
        rows = [line.split(",") for line in log.read_text().splitlines()]
        speed = rows[0].index("images_per_second")
        found["output/log/lixel.csv"] = [row[:speed] + row[speed + 1 :] for row in rows]
    return found


def _table_rows(folder: Path) -> object:
    """The table's rows in any order, and the other files. The names of the table's parts are random."""
    import pyarrow.parquet as pq

    parts = [path for path in (folder / "people").rglob("people-*.parquet") if not path.name.startswith(".")]
    rows = sorted(json.dumps(row, sort_keys=True) for path in parts for row in pq.read_table(path).to_pylist())
    others = {name: data for name, data in files(folder).items() if not name.startswith("people/people-")}
    return rows, others


def _train(folder: Path) -> int:
    recipe = {"pictures": 8, "end_epoch": 2, "ema": 0.9, "validation": "Toy"}
    return training_job.run(tiny_training.tiny_options(folder, recipe, save_every=2, resume=True, workers=1))


def _copy_data_sets(folder: Path) -> None:
    shutil.copytree(TESTS / "goldens" / "datasets" / "tiny", folder / "data")


def _fill_cache(folder: Path) -> int:
    for name, split in (("Human36M", "test"), ("MSCOCO", "train"), ("MuCo", "train"), ("PW3D", "test")):
        open_source(name, folder / "data", split)
    return 0


def _write_releases(folder: Path) -> None:
    body_files.write_body_files(folder / "bodies")
    bodies = {name: load_body(name, folder / "bodies") for name in ("smpl", "smpl-male", "smpl-female")}
    for number, split in enumerate(("train", "train", "validation", "test")):
        test_convert.write_sequence(folder / "3dpw", split, f"street_{number}", bodies)
    for number in range(3):
        clip = folder / "surreal" / ("train" if number else "val") / "run0" / f"0{number}_01"
        test_convert.write_clip(clip, f"0{number}_01_c0001", 17, bodies["smpl-male"], True)


def _convert(folder: Path) -> int:
    convert_pw3d(Pw3dOptions(folder / "3dpw", folder / "data"))
    convert_surreal(SurrealOptions(folder / "surreal", folder / "data", folder / "bodies"))
    return 0


def _generate(folder: Path) -> int:
    generate_pictures(PictureOptions(folder / "pictures", count=24, shard=3))
    return 0


def _take_photos(folder: Path) -> None:
    (folder / "photos" / "more").mkdir(parents=True)
    for number in range(4):
        place = folder / "photos" / ("more" if number % 2 else "") / f"photo_{number}.png"
        Image.fromarray(filmed.frame_pixels(number, (160, 120))).save(place)


def _predict(folder: Path) -> int:
    formats = ("obj", "ply", "glb", "rigged-glb")
    options = clip_options(str(folder / "photos"), out=folder / "out", recursive=True, batch_size=2, formats=formats)
    return predict_clips.run(*options)


def _tabulate(folder: Path) -> int:
    options = predict_options(str(folder / "photos"), recursive=True, batch_size=1, parquet=str(folder / "people"))
    return predict_table.run(options)


def _film(folder: Path) -> None:
    (folder / "clips").mkdir(parents=True)
    filmed.write_clip(folder / "clips" / "walk.mp4", filmed.steady(FRAMES), (160, 120), sound="aac")


def _predict_clip(folder: Path) -> int:
    options = clip_options(str(folder / "clips"), out=folder / "out", formats=("glb", "bvh"), smooth="offline")
    return predict_clips.run(*options)


def _save_person(folder: Path) -> None:
    _take_photos(folder)
    options = clip_options(str(folder / "photos"), out=folder / "saved", formats=(), pictures=False)
    assert predict_clips.run(*options) == 0


def _rig(folder: Path) -> int:
    for ending in ("glb", "bvh"):
        rig.run(RigOptions(folder / "saved" / "photo_0.json", folder / "out" / f"person.{ending}"))
    return 0


JOBS = {
    job.name: job
    for job in (
        Job("training", lambda folder: folder.mkdir(), _train, _training_files, warms=False),
        Job("cache", _copy_data_sets, _fill_cache),
        Job("conversion", _write_releases, _convert),
        Job("synthesis", lambda folder: folder.mkdir(), _generate),
        Job("pictures", _take_photos, _predict),
        Job("table", _take_photos, _tabulate, _table_rows),
        Job("video", _film, _predict_clip),
        Job("rig", _save_person, _rig),
    )
}
