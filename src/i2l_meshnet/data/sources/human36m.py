"""Human3.6M: 17 joints, SMPL fits in world coordinates."""

from pathlib import Path
from typing import Any

import numpy as np

from i2l_meshnet.data.annotation import AnnotationTable, Fit, PersonRow, TableBuilder
from i2l_meshnet.data.cache import read_json
from i2l_meshnet.data.sources.base import NO_BOX, Adapter, CocoFile, Needed, RootNet, from_rootnet
from i2l_meshnet.skeletons import HUMAN36M

SUBJECTS = {"train": (1, 5, 6, 7, 8), "test": (9, 11)}
EVERY = {"train": 5, "test": 64}
TEST_CAMERA = 4
ACTIONS = (
    "Directions Discussion Eating Greeting Phoning Posing Purchases Sitting SittingDown Smoking Photo Waiting "
    "Walking WalkDog WalkTogether"
).split()
FIRST_ACTION = 2
BOXES = "rootnet_output/bbox_root_human36m_output.json"
DATA = "https://drive.google.com/drive/folders/1r0B9I3XxIIW_jsXjYinDpL6NFcxTZart (Human3.6M, parsed)"
FITS = "https://drive.google.com/drive/folders/12fCumEgs9PXT-dAaOGq0EDpl9dGKKorF (SMPL fits of Human3.6M)"
ROOTNET = from_rootnet("https://drive.google.com/drive/folders/15qLaV3KdtPjpXljctlS2gcq4N-GVSDIc")


def _needs(split: str, true_boxes: bool) -> list[Needed]:
    kinds = ("data", "camera", "joint_3d", "smpl_param")
    needed = [
        Needed(f"annotations/Human36M_subject{subject}_{kind}.json", FITS if kind == "smpl_param" else DATA)
        for subject in SUBJECTS[split]
        for kind in kinds
    ]
    if split == "test" and not true_boxes:
        needed.append(Needed(BOXES, ROOTNET))
    return [*needed, Needed("images", DATA, parsed=False)]


def _read(folder: Path, split: str, true_boxes: bool) -> AnnotationTable:
    rows = TableBuilder(HUMAN36M, ("smpl",), bones=24, shapes=10)
    rootnet = RootNet(folder / BOXES if split == "test" and not true_boxes else None, "image_id", per_metre=1000.0)
    for subject in SUBJECTS[split]:
        _add_subject(rows, rootnet, folder / "annotations", subject, split)
    return rows.build(folder / "annotations")


def _add_subject(rows: TableBuilder, rootnet: RootNet, folder: Path, subject: int, split: str) -> None:
    stem = f"Human36M_subject{subject}_"
    data = CocoFile(folder / f"{stem}data.json")
    cameras, joints, fits = (read_json(folder / f"{stem}{kind}.json") for kind in ("camera", "joint_3d", "smpl_param"))

    def person(annotation: dict[str, Any], image: dict[str, Any]) -> PersonRow | str | None:
        if image["frame_idx"] % EVERY[split] or (split == "test" and image["cam_idx"] != TEST_CAMERA):
            return None
        boxed = rootnet.facts(image["id"])
        if boxed is None:
            return NO_BOX
        camera = cameras[str(image["cam_idx"])]
        rotation, translation = np.float32(camera["R"]), np.float32(camera["t"]) / 1000
        action, take, frame = (str(image[key]) for key in ("action_idx", "subaction_idx", "frame_idx"))
        world = np.asarray(joints[action][take][frame], np.float32) / 1000
        in_camera = world @ rotation.T + translation
        smpl = fits.get(action, {}).get(take, {}).get(frame)
        return PersonRow(
            **data.facts(annotation, image) | boxed,
            path=f"images/{image['file_name']}",
            focal=camera["f"],
            center=camera["c"],
            joints_image=in_camera[:, :2] / in_camera[:, 2:] * np.float32(camera["f"]) + np.float32(camera["c"]),
            joints_camera=in_camera,
            fit=Fit(smpl["pose"], smpl["shape"], smpl["trans"], "smpl", rotation, translation) if smpl else None,
            group=ACTIONS[image["action_idx"] - FIRST_ACTION],
        )

    data.add_people(rows, person)


ADAPTER = Adapter("Human36M", ("train", "test"), _needs, _read, joint_regressor="Human36M/J_regressor_h36m_correct.npy")
