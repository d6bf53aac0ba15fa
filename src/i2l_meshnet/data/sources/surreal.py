"""SURREAL: rendered gendered SMPL bodies with 24 joints (`data convert surreal` makes its files)."""

from pathlib import Path
from typing import Any

from i2l_meshnet.data.annotation import AnnotationTable, PersonRow, TableBuilder
from i2l_meshnet.data.sources.base import SMPL_BODIES, Adapter, CocoFile, Needed, smpl_fit
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
    data = CocoFile(folder / f"{split}.json")
    rows = TableBuilder(JOINTS, tuple(SMPL_BODIES.values()), bones=BONES, shapes=10, trusted_fits=True)

    def person(annotation: dict[str, Any], image: dict[str, Any]) -> PersonRow:
        smpl = annotation["smpl_param"]
        return PersonRow(
            **data.facts(annotation, image),
            path=f"{split}/{image['file_name']}",
            joints_image=annotation["joint_img"],
            joints_camera=annotation["joint_cam"],
            fit=smpl_fit(smpl, SMPL_BODIES[smpl["gender"]]),
            group=image["file_name"].split("/")[1] if image["file_name"].count("/") > 1 else "",
        )

    data.add_people(rows, person)
    return rows.build(data.path)


ADAPTER = Adapter("SURREAL", ("train", "val"), _needs, _read)
