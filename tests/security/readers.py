"""All readers of untrusted files. Each one writes small valid files to start from."""

import functools
import itertools
import json
import math
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any
from unittest import mock

import body_files
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import test_convert
import test_multiview
import test_sources
import torch
from fuzzing import Calls, Reader
from PIL import Image
from safetensors.torch import save_file

from i2l_lab.synthetic.bvh import figures, read_bvh
from i2l_lab.synthetic.generate import write_pictures
from i2l_lab.synthetic.pictures import Picture
from i2l_lab.synthetic.shards import read_shards
from i2l_meshnet.bodies import Body, BodyParams, load_body
from i2l_meshnet.bodies.files import read_body_file
from i2l_meshnet.data import sources
from i2l_meshnet.data.cache import load_table
from i2l_meshnet.data.convert.pw3d import _sequence
from i2l_meshnet.data.convert.surreal import _chosen_clips, _clip
from i2l_meshnet.data.dataset import cut_crop
from i2l_meshnet.data.multiview import MultiviewSamples, load_samples, open_clip, save_samples
from i2l_meshnet.data.sources import open_source
from i2l_meshnet.data.sources.synthetic import read_pictures
from i2l_meshnet.data.targets import read_regressor
from i2l_meshnet.errors import FileError
from i2l_meshnet.exporting.graph import write_onnx, write_openvino
from i2l_meshnet.fleet.table import TableFolder
from i2l_meshnet.geometry.camera import Camera
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.models import checkpoint
from i2l_meshnet.models.config import NetworkConfig
from i2l_meshnet.models.exported import Description, Runtime, load_exported, sizes
from i2l_meshnet.models.imagenet import load_weights
from i2l_meshnet.models.snapshot import read_snapshot
from i2l_meshnet.prediction.boxes import BoxFile, require_inside
from i2l_meshnet.prediction.images import read_photo
from i2l_meshnet.training.recipe import Recipe
from i2l_meshnet.training.state import Position, StateFolder, TrainingState
from i2l_meshnet.video.encode import VideoWriter
from i2l_meshnet.video.source import TICKS, Clip, is_clip
from i2l_meshnet.video.track import PersonTrack
from i2l_meshnet.viewing.rig import RigOptions
from i2l_meshnet.viewing.rig import run as rig
from i2l_meshnet.viewing.saved import read_saved

GOLDENS = Path(__file__).parents[1] / "goldens"
MAX_PIXELS = 1_000_000


def pixels(width: int = 40, height: int = 30) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)


def pictures(folder: Path) -> Calls:
    rgb = Image.fromarray(pixels())
    exif = Image.Exif()
    exif[0x0112], exif.get_ifd(0x8769)[0xA405] = 6, 35
    kinds: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "exif.jpg": (rgb, {"exif": exif, "progressive": True}),
        "cmyk.jpg": (rgb.convert("CMYK"), {}),
        "palette.png": (rgb.convert("P"), {"transparency": 3}),
        "deep.png": (Image.fromarray(pixels()[..., 0].astype(np.uint16) * 257), {}),
        "lossless.webp": (rgb.convert("RGBA"), {"lossless": True}),
        "packed.tif": (rgb, {"compression": "tiff_lzw"}),
        **{f"plain.{suffix}": (rgb, {}) for suffix in ("bmp", "gif", "ppm", "avif")},
    }
    for name, (image, options) in kinds.items():
        image.save(folder / name, **options)
    return {name: lambda name=name: read_photo(folder / name, MAX_PIXELS) for name in kinds}


@functools.cache
def smpl_bodies() -> dict[str, Body]:
    with tempfile.TemporaryDirectory() as folder:
        body_files.write_body_files(Path(folder))
        return {name: load_body(name, Path(folder)) for name in ("smpl-male", "smpl-female")}


def clips(folder: Path) -> Calls:
    frame = pixels(48, 32)
    with VideoWriter(folder / "clip.mp4", 48, 32, Fraction(10)) as writer:
        for number in range(4):
            writer.write(np.roll(frame, number, 1), number * TICKS // 10)
    for name, code in (("clip.avi", "MJPG"), ("clip.mkv", "FFV1")):
        stream = cv2.VideoWriter(str(folder / name), cv2.VideoWriter.fourcc(*code), 10, (48, 32))
        for _ in range(3):
            stream.write(frame)
        stream.release()
    Image.fromarray(frame).save(
        folder / "clip.gif", save_all=True, append_images=[Image.fromarray(frame[::-1])], duration=100
    )
    shutil.copy(folder / "clip.mp4", folder / "clip")  # Its content shows what it is.

    def watch(path: Path) -> None:
        if not is_clip(path):
            return
        for _ in itertools.islice(Clip(path, MAX_PIXELS, 60.0).frames(), 20):
            pass

    return {f"clip{end}": lambda end=end: watch(folder / f"clip{end}") for end in (".mp4", ".avi", ".mkv", ".gif", "")}


def boxes(folder: Path) -> Calls:
    contents = {
        "list.json": [[1, 2, 30.5, 40], [5, 6, 7, 8]],
        "names.json": {"photo.jpg": [[1, 2, 30, 40]], "b/other.jpg": []},
        "rootnet.json": [
            {"image_id": 7, "bbox": [1.0, 2, 30, 40], "root_cam": [1, 2, 3000.0], "score": 0.5},
            {"file_name": "photo.jpg", "bbox": [1, 2, 30, 40], "root_cam": [0.1, 0.2, 3.0]},
        ],
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content))

    def look(name: str) -> None:
        for picture in ("photo.jpg", "COCO_000007.jpg"):
            for person in BoxFile(folder / name).of(Path(picture)) or ():
                require_inside(person, 100, 100, picture)

    return {name: lambda name=name: look(name) for name in contents}


def annotations(folder: Path) -> Calls:
    shutil.copytree(GOLDENS / "datasets" / "tiny", folder, dirs_exist_ok=True)
    fit = {"pose": [0.1] * 72, "shape": [0.0] * 10, "trans": [0.0, 0.0, 3.0], "gender": "male"}
    test_sources.write_custom(folder, keypoints_cam=[[0.1, 0.2, 3]] * 5, smpl_param=fit)
    person = {"id": 1, "image_id": 1, "bbox": [50, 10, 60, 80], "smpl_param": fit}
    person |= {"joint_img": [[20.0, 30.0]] * 24, "joint_cam": [[0.1, 0.2, 3.0]] * 24}
    camera = {"focal": [600.0, 600.0], "princpt": [160.0, 120.0]}
    image = {"id": 1, "file_name": "run0/walk/a.jpg", "width": 320, "height": 240, "cam_param": camera}
    (folder / "SURREAL").mkdir()
    (folder / "SURREAL" / "train.json").write_text(json.dumps({"images": [image], "annotations": [person]}))
    read = {
        "Custom/annotations/train.json": ("Custom", "train"),
        "SURREAL/train.json": ("SURREAL", "train"),
        "MSCOCO/annotations/person_keypoints_train2017.json": ("MSCOCO", "train"),
        "MSCOCO/rootnet_output/bbox_root_coco_output.json": ("MSCOCO", "val"),
        "PW3D/data/3DPW_train.json": ("PW3D", "train"),
        "MuCo/data/MuCo-3DHP.json": ("MuCo", "train"),
        "MuCo/data/smpl_param.json": ("MuCo", "train"),
        "FreiHAND/data/freihand_train_data.json": ("FreiHAND", "train"),
        "FreiHAND/rootnet_output/bbox_root_freihand_output.json": ("FreiHAND", "eval"),
        "Human36M/annotations/Human36M_subject9_camera.json": ("Human36M", "test"),
        "Human36M/annotations/Human36M_subject9_joint_3d.json": ("Human36M", "test"),
    }

    def opened(name: str, split: str) -> None:
        with _without_cache():
            source = open_source(name, folder, split)
        for index in range(len(source)):
            assert source.image_path(index).is_relative_to(source.folder)
            assert ".." not in source.table.image_path(index).split("/")
        source.table.annotations(range(len(source)))

    return {file: lambda what=what: opened(*what) for file, what in read.items()}


def _without_cache() -> Any:
    """Without the cache, whose arrays would be mapped from a file that is being damaged."""
    return mock.patch.object(sources, "load_table", lambda name, folder, files, parse: parse())


def cache(folder: Path) -> Calls:
    shutil.copytree(GOLDENS / "datasets" / "tiny" / "PW3D", folder / "PW3D")
    open_source("PW3D", folder, "train")
    with _without_cache():
        source = open_source("PW3D", folder, "train")

    def load() -> None:
        files = [folder / "PW3D" / "data" / "3DPW_train.json"]
        # A damaged cache is written again, which this test does not need.
        with mock.patch("i2l_meshnet.data.cache.write_safetensors"):
            table = load_table("PW3D-train", folder / "PW3D", files, lambda: source.table)
        for index in range(len(table)):
            table.group(index)
            bytes(table.arrays["paths"][: table.arrays["path_ends"][index]])
        table.annotations(range(len(table)))

    return {"PW3D/.i2l-meshnet/PW3D-train.safetensors": load}


def results(folder: Path) -> Calls:
    body, camera = load_body("toy"), {"focal": [500.0, 500.0], "center": [159.5, 119.5]}
    frames, mesh = 3, body(body.rest_params())
    params = BodyParams.stack([body.rest_params()] * frames)
    PersonTrack(
        body="toy",
        joint_names=body.skeleton.joints,
        bone_names=body.bones,
        shape_names=body.shape_names,
        time=np.arange(frames) / 25,
        frame=np.arange(frames),
        focal=np.full(2, 500, np.float32),
        center=np.full(2, 100, np.float32),
        box=np.ones((frames, 4), np.float32),
        confidence=np.ones(frames, np.float32),
        bridged=np.zeros(frames, bool),
        joints=np.stack([mesh.joints.numpy()] * frames),
        pose=params.pose.numpy(),
        shape=params.shape[0].numpy(),
        translation=params.translation.numpy(),
        vertices=np.stack([mesh.vertices.numpy().astype(np.float16)] * frames),
        origin=np.zeros((frames, 3), np.float32),
        faces=body.faces.numpy(),
    ).save(folder / "clip_person_00.npz")
    files = {"files": {"arrays": {"npz": "clip_person_00.npz"}}}
    clip = {"format": "i2l-meshnet clip", "clip": {"file": "a.mp4", "width": 320, "height": 240}}
    (folder / "clip.json").write_text(json.dumps(clip | {"intrinsics": camera, "people": [files]}))
    arrays = {
        "body": np.array(["toy"]),
        "faces": body.faces.numpy(),
        "joint_names": np.array(body.skeleton.joints),
        "bone_names": np.array(body.bones),
        "shape_names": np.array(body.shape_names),
        "confidence": np.ones(1, np.float32),
        "box": np.ones((1, 4), np.float32),
        "intrinsics": np.array([500, 500, 159.5, 119.5], np.float32),
        "image_size": np.array([320, 240]),
        "lixel_vertices": mesh.vertices[None].numpy(),
        "lixel_joints": mesh.joints[None].numpy(),
        "param_joints": mesh.joints[None].numpy(),
        "pose_matrix": params.pose[:1].numpy(),
        "shape": params.shape[:1].numpy(),
        "translation": params.translation[:1].numpy(),
    }
    np.savez(folder / "photo.npz", **arrays)
    photo = {"format": "i2l-meshnet prediction", "files": {"arrays": "photo.npz"}, "picture": {"file": "photo.jpg"}}
    (folder / "photo.json").write_text(json.dumps(photo | {"people": []}))

    def use(name: str) -> None:
        scene = read_saved(folder / name)
        for person in scene.people:
            person.mesh("lixel", 0, None)
        with mock.patch("builtins.print"):
            rig(RigOptions(folder / name, folder / "out" / "rigged.bvh"))

    (folder / "out").mkdir()
    return {
        name: lambda name=name: use(name) for name in ("clip_person_00.npz", "clip.json", "photo.npz", "photo.json")
    }


def arrays(folder: Path) -> Calls:
    """Shards of synthetic pictures, multi-view samples, joint regressors."""
    (folder / "bank").mkdir()
    shard = {"keypoints": np.ones((2, 26, 3), np.float32), "root_depth": np.ones(2, np.float32)}
    np.savez(folder / "bank" / "train_0.npz", **shard)
    params = BodyParams(torch.eye(3).expand(4, 3, 3), torch.zeros(2), torch.zeros(3))
    jpeg = cv2.imencode(".jpg", pixels())[1].reshape(-1)
    box, two = np.ones(4, np.float32), np.ones(2, np.float32)
    points = np.ones((3, 3), np.float32)
    write_pictures(folder / "shard.npz", [Picture(jpeg, points, points, box, two, two, params)] * 2)
    samples = MultiviewSamples(
        *(torch.zeros(2, dtype=torch.long) for _ in range(3)),
        torch.ones(2, 4),
        Camera(torch.ones(2, 2), torch.ones(2, 2)),
        torch.ones(2, 26, 3),
        torch.ones(2, 12, 3),
        torch.ones(2, 12, 3),
        torch.ones(2),
    )
    save_samples(samples, folder / "samples.npz")
    np.save(folder / "regressor.npy", np.ones((3, 5)))

    def look() -> None:
        found = read_pictures(folder / "shard.npz")
        for index in range(len(found)):
            found.image(index)

    return {
        "bank/train_0.npz": lambda: read_shards(folder / "bank", False, "tests", "make it"),
        "shard.npz": look,
        "samples.npz": lambda: load_samples(folder / "samples.npz"),
        "regressor.npy": lambda: read_regressor(folder / "regressor.npy"),
    }


def body_pickles(folder: Path) -> Calls:
    entries = body_files.body_entries("mano")
    ch = body_files.Ch(x=np.arange(12.0).reshape(3, 4))
    chosen = body_files.Select(a=ch, idxs=np.arange(4), preferred_shape=(2, 2))
    small = {
        "posedirs": ch,
        "shapedirs": chosen,
        "J_regressor": entries["J_regressor"][:2, :50].tocsc(),
        "lists": [np.arange(3.0), np.arange(2)],
        "numbers": [[1, 2], [3, 4]],
        "bs_type": "lrotmin",
        "number": np.float64(3.0),
    }
    body_files.write_pickle(folder / "small.pkl", small)
    body_files.write_pickle(folder / "protocol.0", small, protocol=0)
    np.savez(folder / "small.npz", v_template=np.ones((5, 3)), f=np.ones((4, 3), np.uint32), bs_type="lrotmin")
    test_convert.write_sequence(folder, "train", "walk", smpl_bodies())
    shutil.copy(folder / "sequenceFiles" / "train" / "walk.pkl", folder / "sequence.pkl")
    return {
        "small.npz": lambda: read_body_file(folder / "small.npz"),
        "small.pkl": lambda: read_body_file(folder / "small.pkl"),
        "protocol.0": lambda: read_body_file(folder / "protocol.0"),
        "sequence.pkl": lambda: _sequence(folder / "sequence.pkl", folder / "imageFiles"),
    }


def torch_files(folder: Path) -> Calls:
    """Published snapshots, ImageNet weights, saved states of training."""
    recipe = Recipe()
    state = TrainingState(
        recipe=recipe.to_json(),
        position=Position(1, 2, 3),
        network={"weight": torch.ones(4, 3)},
        optimizer={"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-4}]},
        average={},
        random=torch.get_rng_state()[None, :10],
        cuda_random=None,
        processes=1,
        best=0.5,
    )
    path = StateFolder(folder, "lixel").save(state)
    network = {f"module.{name}.weight": torch.ones(2, 2) for name in ("pose_backbone.conv1", "mesh_net.conv_x.0")}
    torch.save({"epoch": 3, "network": network, "optimizer": {}}, folder / "snapshot_3.pth.tar")
    torch.save({"conv1.weight": torch.ones(2, 2)}, folder / "resnet18.pth")
    legacy = folder / "legacy.bin"
    torch.save({"conv1.weight": torch.ones(2, 2)}, legacy, _use_new_zipfile_serialization=False)

    return {
        path.name: lambda: StateFolder(path.parent, recipe.stage).load(recipe, 1),
        "snapshot_3.pth.tar": _but_incomplete(lambda: read_snapshot(folder / "snapshot_3.pth.tar")),
        "resnet18.pth": _but_incomplete(lambda: load_weights("resnet18", folder / "resnet18.pth")),
        "legacy.bin": _but_incomplete(lambda: load_weights("resnet18", legacy)),
    }


def _but_incomplete(call: Callable[[], object]) -> Callable[[], object]:
    """Accept the error for missing weights: these valid files have only a part of a network."""

    def read() -> None:
        try:
            call()
        except FileError as error:
            if "has no module" not in str(error) and "lacks the tensor" not in str(error):
                raise

    return read


def checkpoints(folder: Path) -> Calls:
    body = load_body("toy")
    config = NetworkConfig.for_body(body, "published", "resnet18", LixelGrid())
    metadata = checkpoint.Metadata(config, "none", "a test", {"stage": "lixel", "nested": {"a": [1, 2]}})
    checkpoint.write({"a.weight": torch.ones(3, 2), "b.bias": torch.zeros(2)}, metadata, folder / "net.safetensors")
    save_file({"conv1.weight": torch.ones(2, 2)}, folder / "resnet18.safetensors")
    return {
        "net.safetensors": lambda: checkpoint.read_metadata(folder / "net.safetensors"),
        "resnet18.safetensors": _but_incomplete(lambda: load_weights("resnet18", folder / "resnet18.safetensors")),
    }


class Flat(torch.nn.Module):
    """A network with one layer for each output."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.sizes = {name: tuple(length or 26 for length in size) for name, size in sizes(config).items()}
        self.layers = torch.nn.ModuleList(torch.nn.Linear(3, math.prod(size)) for size in self.sizes.values())

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        mean = image.mean((2, 3))
        return tuple(
            layer(mean).unflatten(1, size) for layer, size in zip(self.layers, self.sizes.values(), strict=True)
        )


def exported(folder: Path) -> Calls:
    """Networks for ONNX Runtime and OpenVINO, with one batch computed."""
    torch.manual_seed(0)
    config = NetworkConfig.for_body(load_body("toy"), "published", "small", LixelGrid(crop_size=(32, 32)))
    network, image = Flat(config).eval(), torch.rand(2, 3, 32, 32)
    program = torch.export.export(network, (image,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    said = Description(checkpoint.Metadata(config, "none", "a test"), tuple(network.sizes), "0", None)
    write_onnx(program, said, folder / "net.onnx")
    shutil.copy(folder / "net.onnx", folder / "other.onnx")
    write_openvino(folder / "net.onnx", folder / "net.openvino")
    with zipfile.ZipFile(folder / "net.openvino") as archive:
        archive.extractall(folder)

    def compute(name: str, runtime: Runtime) -> None:
        load_exported(folder / name, None, runtime)[0](image)

    return {
        "net.onnx": lambda: compute("net.onnx", "onnx"),
        "other.onnx": lambda: compute("other.onnx", "openvino"),
        "net.openvino": lambda: compute("net.openvino", "openvino"),
        "model.xml": lambda: compute("model.xml", "openvino"),
        "model.bin": lambda: compute("model.xml", "openvino"),
    }


def calibration(folder: Path) -> Calls:
    """Pose2Sim's demonstration: calibrated cameras and their videos."""
    test_multiview.write_clip(folder)
    files = ("calibration/Calib.qca.txt", "videos/cam01.mp4")
    return dict.fromkeys(files, lambda: [*open_clip(folder).frames(1)])


def motion_capture(folder: Path) -> Calls:
    """A hierarchy in which each bone of a limb is the child of the one before."""
    limbs = (("Arm", "ForeArm", "Hand"), ("UpLeg", "Leg", "Foot"))
    chains = [("Chest", "Head"), *(tuple(side + bone for bone in limb) for side in ("Left", "Right") for limb in limbs)]
    channels = "CHANNELS 3 Zrotation Xrotation Yrotation"
    lines = ["HIERARCHY", "ROOT Hips", "{", "OFFSET 0 0 0", channels]
    for chain in chains:
        for bone in chain:
            x = bone.startswith("Left") - bone.startswith("Right")
            y = -3 if bone.endswith(("Leg", "Foot")) else 1
            lines += [f"JOINT {bone}", "{", f"OFFSET {x} {y} 0.1", channels]
        lines += ["End Site", "{", "OFFSET 0 0 1", "}", *["}"] * len(chain)]
    numbers = 3 * (1 + sum(map(len, chains)))
    motion = [" ".join(str(5.0 * frame + k) for k in range(numbers)) for frame in range(3)]
    lines += ["}", "MOTION", "Frames: 3", "Frame Time: 0.033", *motion]
    (folder / "walk.bvh").write_text("\n".join(lines))
    return {"walk.bvh": lambda: figures(read_bvh(folder / "walk.bvh"))}


def tables(folder: Path) -> Calls:
    part = folder / "people-000000-00000000.parquet"
    pq.write_table(pa.table({"picture": ["a.jpg", "b.jpg", "a.jpg"], "person": [0, 1, 2]}), part)
    return {part.name: lambda: TableFolder(str(folder)).pictures()}


def surreal_clips(folder: Path) -> Calls:
    """SURREAL's release: clips, their MATLAB files, and lists of clips."""
    bodies = {name.removeprefix("smpl-"): body for name, body in smpl_bodies().items()}
    for name in ("plain", "packed"):
        test_convert.write_clip(folder, name, 3, bodies["male"], True, packed=name == "packed")
    (folder / "clips.txt").write_text("a/run1/02_02/02_02_c0001.mp4\nb/run0/01_01/01_01_c0001.mp4\n")

    def convert(name: str) -> None:
        content = _clip(folder / f"{name}.mp4", Path(name), folder / "out", name == "packed", bodies)
        json.dumps(content, allow_nan=False)

    return {
        "plain_info.mat": lambda: convert("plain"),
        "packed_info.mat": lambda: convert("packed"),
        "plain.mp4": lambda: convert("plain"),
        "clips.txt": lambda: _chosen_clips(folder / "clips.txt"),
    }


def crops(folder: Path) -> Calls:
    affine = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])
    names = ("a.jpg", "a.png", "a.webp", "a.bmp", "a.tif")
    for name in names:
        Image.fromarray(pixels()).save(folder / name)
    return {name: lambda name=name: cut_crop(folder / name, affine, (40, 30), (32, 32)) for name in names}


READERS = [
    Reader("pictures", pictures),
    Reader("pictures of data sets", crops),
    Reader("clips", clips),
    Reader("boxes and RootNet", boxes),
    Reader("annotations", annotations),
    Reader("annotation cache", cache),
    Reader("saved results", results),
    Reader("arrays", arrays),
    Reader("SMPL, MANO and 3DPW pickles", body_pickles),
    Reader("PyTorch files", torch_files),
    Reader("safetensors", checkpoints),
    Reader("exported networks", exported),
    Reader("calibrated videos", calibration),
    Reader("motion capture", motion_capture),
    Reader("Parquet tables", tables),
    Reader("SURREAL's clips", surreal_clips),
]
