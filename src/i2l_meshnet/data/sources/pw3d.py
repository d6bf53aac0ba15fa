"""3DPW: gendered SMPL bodies in the camera frame, no joints of its own (`data convert 3dpw` makes its files)."""

from pathlib import Path

from i2l_meshnet.data.annotation import AnnotationTable, Fit, TableBuilder
from i2l_meshnet.data.cache import read_json
from i2l_meshnet.data.sources.base import Adapter, CocoFile, Needed
from i2l_meshnet.skeletons import HUMAN36M

ROOTNET = "rootnet_output/bbox_root_pw3d_output.json"
BODIES = {"neutral": "smpl", "male": "smpl-male", "female": "smpl-female"}


def _needs(split: str, true_boxes: bool) -> list[Needed]:
    made = "`i2l-meshnet data convert 3dpw`, from the release at virtualhumans.mpi-inf.mpg.de/3DPW"
    needed = [Needed(f"data/3DPW_{split}.json", made)]
    if split == "test" and not true_boxes:
        needed.append(Needed(ROOTNET, "RootNet's outputs, linked from the published README"))
    return [*needed, Needed("data/imageFiles", f"{made} (imageFiles/ beside data/ will do too)", parsed=False)]


def _read(folder: Path, split: str, true_boxes: bool) -> AnnotationTable:
    path = folder / "data" / f"3DPW_{split}.json"
    data = CocoFile(read_json(path), path)
    rootnet = {}
    if split == "test" and not true_boxes:
        rootnet = {entry["ann_id"]: entry for entry in read_json(folder / ROOTNET)}
    # The published README says imageFiles/, its code data/imageFiles/: both are found.
    pictures = "data/imageFiles" if (folder / "data" / "imageFiles").is_dir() else "imageFiles"
    rows = TableBuilder(HUMAN36M, tuple(BODIES.values()), bones=24, shapes=10, trusted_fits=True)
    for annotation in data.annotations:
        image, smpl = data.image_of(annotation), annotation["smpl_param"]
        boxed = rootnet.get(annotation["id"])
        if rootnet and boxed is None:
            rows.leave_out("without RootNet box")
            continue
        joints = annotation.get("joint_cam")
        depth = joints[0][2] if joints else None
        rows.add(
            where=str(path),
            id=annotation["id"],
            path=f"{pictures}/{image['sequence']}/{image['file_name']}",
            size=(image["width"], image["height"]),
            box=boxed["bbox"] if boxed else annotation["bbox"],
            prepared=boxed is not None,
            focal=image["cam_param"]["focal"],
            center=image["cam_param"]["princpt"],
            fit=Fit(smpl["pose"], smpl["shape"], smpl["trans"], BODIES[smpl["gender"]]),
            root_depth=boxed["root_cam"][2] if boxed else depth,
            group=image["sequence"],
            person=annotation.get("person_id", -1),
            frame=image.get("frame_idx", -1),
        )
    return rows.build(path)


ADAPTER = Adapter(
    "PW3D", ("train", "validation", "test"), _needs, _read, joint_regressor="Human36M/J_regressor_h36m_correct.npy"
)
