"""3DPW: gendered SMPL bodies in the camera frame, no joints of its own (`data convert 3dpw` makes its files)."""

from pathlib import Path
from typing import Any

from i2l_meshnet.data.annotation import AnnotationTable, PersonRow, TableBuilder
from i2l_meshnet.data.sources.base import (
    NO_BOX,
    SMPL_BODIES,
    Adapter,
    CocoFile,
    Needed,
    RootNet,
    from_rootnet,
    smpl_fit,
)
from i2l_meshnet.skeletons import HUMAN36M

BOXES = "rootnet_output/bbox_root_pw3d_output.json"
ROOTNET = from_rootnet("https://drive.google.com/file/d/1oqSllmOlapJFW7LqUEEyheqgnjP11Ol9/view")
RELEASE = "https://virtualhumans.mpi-inf.mpg.de/3DPW/"
ANNOTATIONS = "https://drive.google.com/drive/folders/1HByTBsdg_A_o-d89qd55glTl44ya3dOs"

# The published code reads data/imageFiles/, its README names imageFiles/.
PICTURES = Needed("data/imageFiles", RELEASE, parsed=False, instead="imageFiles")


def _needs(split: str, true_boxes: bool) -> list[Needed]:
    made = f"{ANNOTATIONS} (3DPW in COCO format), or `i2l-meshnet data convert 3dpw`"
    needed = [Needed(f"data/3DPW_{split}.json", made)]
    if split == "test" and not true_boxes:
        needed.append(Needed(BOXES, ROOTNET))
    return [*needed, PICTURES]


def _read(folder: Path, split: str, true_boxes: bool) -> AnnotationTable:
    data = CocoFile(folder / "data" / f"3DPW_{split}.json")
    rootnet = RootNet(folder / BOXES if split == "test" and not true_boxes else None, "ann_id")
    pictures = PICTURES.existing(folder) or PICTURES.path
    rows = TableBuilder(HUMAN36M, tuple(SMPL_BODIES.values()), bones=24, shapes=10, trusted_fits=True)

    def person(annotation: dict[str, Any], image: dict[str, Any]) -> PersonRow | str:
        boxed = rootnet.facts(annotation["id"])
        if boxed is None:
            return NO_BOX
        smpl, joints = annotation["smpl_param"], annotation.get("joint_cam")
        depth = {"root_depth": joints[0][2]} if joints else {}
        return PersonRow(
            **data.facts(annotation, image) | depth | boxed,
            path=f"{pictures}/{image['sequence']}/{image['file_name']}",
            fit=smpl_fit(smpl, SMPL_BODIES[smpl["gender"]]),
            group=image["sequence"],
            person=annotation.get("person_id", -1),
            frame=image.get("frame_idx", -1),
        )

    data.add_people(rows, person)
    return rows.build(data.path)


ADAPTER = Adapter(
    "PW3D", ("train", "validation", "test"), _needs, _read, joint_regressor="Human36M/J_regressor_h36m_correct.npy"
)
