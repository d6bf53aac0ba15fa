"""SURREAL: rendered gendered SMPL bodies with 24 joints (`data convert surreal` makes its files)."""

from pathlib import Path

from i2l_meshnet.data.annotation import AnnotationTable, Fit, TableBuilder
from i2l_meshnet.data.cache import read_json
from i2l_meshnet.data.sources.base import Adapter, CocoFile, Needed
from i2l_meshnet.data.sources.pw3d import BODIES
from i2l_meshnet.skeletons import SMPL, Skeleton

BONES = 24
JOINTS = Skeleton(
    "surreal",
    SMPL.joints[:BONES],
    tuple(bone for bone in SMPL.bones if all(SMPL.index(end) < BONES for end in bone)),
    SMPL.root,
)
"""The joints of SMPL's kinematic tree, without the face."""


def _needs(split: str, true_boxes: bool) -> list[Needed]:
    made = "`i2l-meshnet data convert surreal`, from the release at di.ens.fr/willow/research/surreal"
    return [Needed(f"{split}.json", made), Needed(split, made, parsed=False)]


def _read(folder: Path, split: str, true_boxes: bool) -> AnnotationTable:
    path = folder / f"{split}.json"
    data = CocoFile(read_json(path), path)
    rows = TableBuilder(JOINTS, tuple(BODIES.values()), bones=BONES, shapes=10, trusted_fits=True)
    for annotation in data.annotations:
        image, smpl = data.image_of(annotation), annotation["smpl_param"]
        rows.add(
            where=str(path),
            id=annotation["id"],
            path=f"{split}/{image['file_name']}",
            size=(image["width"], image["height"]),
            box=annotation["bbox"],
            prepared=False,
            focal=image["cam_param"]["focal"],
            center=image["cam_param"]["princpt"],
            joints_image=annotation["joint_img"],
            joints_camera=annotation["joint_cam"],
            fit=Fit(smpl["pose"], smpl["shape"], smpl["trans"], BODIES[smpl["gender"]]),
            root_depth=annotation["joint_cam"][JOINTS.root_index][2],
            group=image["file_name"].split("/")[1] if image["file_name"].count("/") > 1 else "",
        )
    return rows.build(path)


ADAPTER = Adapter("SURREAL", ("train", "val"), _needs, _read)
