"""FreiHAND: right hands with MANO ground truth; the evaluation split has only images and cameras."""

from pathlib import Path
from typing import Any

import numpy as np

from i2l_meshnet.data.annotation import AnnotationTable, PersonRow, TableBuilder
from i2l_meshnet.data.cache import read_json
from i2l_meshnet.data.sources.base import NO_BOX, Adapter, CocoFile, Needed, RootNet, from_rootnet, smpl_fit
from i2l_meshnet.skeletons import MANO

BOXES = "rootnet_output/bbox_root_freihand_output.json"
ROOTNET = from_rootnet("https://drive.google.com/file/d/1LqKP3gFCDNC2epV-vsdwOZeR6_5sUZU2/view")
RELEASE = "https://lmb.informatik.uni-freiburg.de/projects/freihand/"


def _needs(split: str, true_boxes: bool) -> list[Needed]:
    parsed = "https://drive.google.com/drive/folders/13qR8EhHFgvJ_AjgHz-JZKQQzYJX7oLpE (FreiHAND, parsed)"
    needed = [Needed(f"data/freihand_{split}_{kind}.json", parsed) for kind in ("coco", "data")]
    if split == "eval" and not true_boxes:
        needed.append(Needed(BOXES, ROOTNET))
    pictures = "data/training" if split == "train" else "data/evaluation"
    return [*needed, Needed(pictures, f"{RELEASE} (FreiHAND v2)", parsed=False)]


def _read(folder: Path, split: str, true_boxes: bool) -> AnnotationTable:
    data = CocoFile(folder / "data" / f"freihand_{split}_coco.json")
    truth = read_json(folder / "data" / f"freihand_{split}_data.json")
    rootnet = RootNet(folder / BOXES if split == "eval" and not true_boxes else None, "image_id")
    rows = TableBuilder(MANO, ("mano",), bones=16, shapes=10, trusted_fits=True)

    def person(annotation: dict[str, Any], image: dict[str, Any]) -> PersonRow | str:
        boxed = rootnet.facts(image["id"])
        if boxed is None:
            return NO_BOX
        hand, known = truth[str(image["db_idx"])], {}
        camera = hand["cam_param"]
        if split == "train":
            joints = np.asarray(hand["joint_3d"], np.float32)
            pixels = joints[:, :2] / joints[:, 2:] * np.float32(camera["focal"]) + np.float32(camera["princpt"])
            known = {"joints_image": pixels, "joints_camera": joints, "fit": smpl_fit(hand["mano_param"], "mano")}
        facts = data.facts(annotation, {**image, "cam_param": camera}) | known | boxed
        return PersonRow(**facts, path=f"data/{image['file_name']}")

    data.add_people(rows, person)
    return rows.build(data.path)


ADAPTER = Adapter("FreiHAND", ("train", "eval"), _needs, _read)
