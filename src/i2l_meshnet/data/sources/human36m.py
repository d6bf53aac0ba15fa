"""Human3.6M: 17 joints, SMPL fits in world coordinates."""

from pathlib import Path

import numpy as np

from i2l_meshnet.data.annotation import AnnotationTable, Fit, TableBuilder
from i2l_meshnet.data.cache import read_json
from i2l_meshnet.data.sources.base import ROOTNET, Adapter, CocoFile, Needed, RootNet
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
ORIGIN = "the Human3.6M parsing of the published I2L-MeshNet (its README, section Data)"


def _needs(split: str, true_boxes: bool) -> list[Needed]:
    kinds = ("data", "camera", "joint_3d", "smpl_param")
    needed = [
        Needed(f"annotations/Human36M_subject{subject}_{kind}.json", ORIGIN)
        for subject in SUBJECTS[split]
        for kind in kinds
    ]
    if split == "test" and not true_boxes:
        needed.append(Needed(BOXES, ROOTNET))
    return [*needed, Needed("images", ORIGIN, parsed=False)]


def _read(folder: Path, split: str, true_boxes: bool) -> AnnotationTable:
    rows = TableBuilder(HUMAN36M, ("smpl",), bones=24, shapes=10)
    rootnet = RootNet(folder / BOXES if split == "test" and not true_boxes else None, "image_id", per_metre=1000.0)
    for subject in SUBJECTS[split]:
        stem = str(folder / "annotations" / f"Human36M_subject{subject}_")
        data = CocoFile(Path(stem + "data.json"))
        cameras, joints, fits = (read_json(Path(f"{stem}{kind}.json")) for kind in ("camera", "joint_3d", "smpl_param"))
        for annotation, image in data.people():
            if image["frame_idx"] % EVERY[split] or (split == "test" and image["cam_idx"] != TEST_CAMERA):
                continue
            boxed = rootnet.facts(image["id"])
            if boxed is None:
                rows.leave_out("without RootNet box")
                continue
            camera = cameras[str(image["cam_idx"])]
            rotation, translation = np.float32(camera["R"]), np.float32(camera["t"]) / 1000
            place = [str(image[key]) for key in ("action_idx", "subaction_idx", "frame_idx")]
            world = np.asarray(joints[place[0]][place[1]][place[2]], np.float32) / 1000
            in_camera = world @ rotation.T + translation
            pixels = in_camera[:, :2] / in_camera[:, 2:] * np.float32(camera["f"]) + np.float32(camera["c"])
            smpl = fits.get(place[0], {}).get(place[1], {}).get(place[2])
            rows.add(
                **data.facts(annotation, image) | boxed,
                path=f"images/{image['file_name']}",
                focal=camera["f"],
                center=camera["c"],
                joints_image=pixels,
                joints_camera=in_camera,
                fit=Fit(smpl["pose"], smpl["shape"], smpl["trans"], "smpl", rotation, translation) if smpl else None,
                group=ACTIONS[image["action_idx"] - FIRST_ACTION],
            )
    return rows.build(folder / "annotations")


ADAPTER = Adapter("Human36M", ("train", "test"), _needs, _read, joint_regressor="Human36M/J_regressor_h36m_correct.npy")
