"""MuCo-3DHP: composed images, 21 joints, SMPL fits in the camera frame. Only the nearest person of an image is used."""

from pathlib import Path
from typing import Any

import numpy as np

from i2l_meshnet.data.annotation import AnnotationTable, PersonRow, TableBuilder
from i2l_meshnet.data.cache import read_json
from i2l_meshnet.data.sources.base import Adapter, CocoFile, Needed, smpl_fit
from i2l_meshnet.skeletons import MUCO

ANNOTATIONS, FITS = "data/MuCo-3DHP.json", "data/smpl_param.json"
DATA_ORIGIN = "https://drive.google.com/drive/folders/1dfhFa1kBHYKLTKuprNc7xixt3yyKEky5 (MuCo, parsed)"
FITS_ORIGIN = "https://drive.google.com/drive/folders/1Wm1_6tn1u-_RE1iUlibIWfS75O79aJRz (SMPL fits of MuCo)"


def _needs(split: str, true_boxes: bool) -> list[Needed]:
    return [
        Needed(ANNOTATIONS, DATA_ORIGIN),
        Needed(FITS, FITS_ORIGIN),
        Needed("data/augmented_set", DATA_ORIGIN, parsed=False),
        Needed("data/unaugmented_set", DATA_ORIGIN, parsed=False),
    ]


def _read(folder: Path, split: str, true_boxes: bool) -> AnnotationTable:
    data, fits = CocoFile(folder / ANNOTATIONS), read_json(folder / FITS)
    nearest: dict[int, dict[str, Any]] = {}
    for annotation in data.annotations:
        image = annotation["image_id"]
        if image not in nearest or _root_depth(annotation) < _root_depth(nearest[image]):
            nearest[image] = annotation
    rows = TableBuilder(MUCO, ("smpl",), bones=24, shapes=10)
    rows.leave_out("picture without a person", len(data.images.keys() - nearest))
    data.annotations = [nearest[image] for image in data.images if image in nearest]

    def person(annotation: dict[str, Any], image: dict[str, Any]) -> PersonRow:
        smpl = fits.get(str(annotation["id"]))
        return PersonRow(
            **data.facts(annotation, image),
            path=f"data/{image['file_name']}",
            focal=image["f"],
            center=image["c"],
            joints_image=annotation["keypoints_img"],
            joints_camera=np.asarray(annotation["keypoints_cam"], np.float32) / 1000,
            fit=smpl_fit(smpl) if smpl else None,
        )

    data.add_people(rows, person)
    return rows.build(data.path)


def _root_depth(annotation: dict[str, Any]) -> float:
    """Depth of the pelvis, mm; infinite for a person without a pelvis, who is then never the nearest."""
    joints = annotation["keypoints_cam"]
    return joints[MUCO.root_index][2] if len(joints) > MUCO.root_index else float("inf")


ADAPTER = Adapter("MuCo", ("train",), _needs, _read, joint_regressor="Human36M/J_regressor_h36m_correct.npy")
