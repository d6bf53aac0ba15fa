"""FreiHAND: right hands with MANO ground truth; the evaluation split has pictures and cameras only."""

from pathlib import Path

import numpy as np

from i2l_meshnet.data.annotation import AnnotationTable, Fit, TableBuilder
from i2l_meshnet.data.cache import read_json
from i2l_meshnet.data.sources.base import Adapter, CocoFile, Needed
from i2l_meshnet.skeletons import MANO

ROOTNET = "rootnet_output/bbox_root_freihand_output.json"


def _needs(split: str, true_boxes: bool) -> list[Needed]:
    parsed = "the FreiHAND parsing linked from the published README"
    needed = [Needed(f"data/freihand_{split}_{kind}.json", parsed) for kind in ("coco", "data")]
    if split == "eval" and not true_boxes:
        needed.append(Needed(ROOTNET, "RootNet's outputs, linked from the published README"))
    pictures = "data/training" if split == "train" else "data/evaluation"
    return [*needed, Needed(pictures, "lmb.informatik.uni-freiburg.de, FreiHAND v2", parsed=False)]


def _read(folder: Path, split: str, true_boxes: bool) -> AnnotationTable:
    path = folder / "data" / f"freihand_{split}_coco.json"
    data, truth = CocoFile(read_json(path), path), read_json(folder / "data" / f"freihand_{split}_data.json")
    rootnet = {}
    if split == "eval" and not true_boxes:
        rootnet = {entry["image_id"]: entry for entry in read_json(folder / ROOTNET)}
    rows = TableBuilder(MANO, ("mano",), bones=16, shapes=10, trusted_fits=True)
    for annotation in data.annotations:
        image = data.image_of(annotation)
        facts, boxed = truth[str(image["db_idx"])], rootnet.get(image["id"])
        if rootnet and boxed is None:
            rows.leave_out("without RootNet box")
            continue
        camera, fit, joints, pixels, depth = facts["cam_param"], None, None, None, None
        if split == "train":
            joints = np.asarray(facts["joint_3d"], np.float32)
            pixels = joints[:, :2] / joints[:, 2:] * np.float32(camera["focal"]) + np.float32(camera["princpt"])
            depth = float(joints[MANO.root_index, 2])
            mano = facts["mano_param"]
            fit = Fit(mano["pose"], mano["shape"], mano["trans"], "mano")
        rows.add(
            where=str(path),
            id=annotation["id"],
            path=f"data/{image['file_name']}",
            size=(image["width"], image["height"]),
            box=boxed["bbox"] if boxed else annotation["bbox"],
            prepared=boxed is not None,
            focal=camera["focal"],
            center=camera["princpt"],
            joints_image=pixels,
            joints_camera=joints,
            fit=fit,
            root_depth=boxed["root_cam"][2] if boxed else depth,
        )
    return rows.build(path)


ADAPTER = Adapter("FreiHAND", ("train", "eval"), _needs, _read)
