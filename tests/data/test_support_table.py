"""The table in docs/data.md of what each dataset trains and evaluates is what the code accepts.

After a change, run this test and copy the table from its message.
"""

import json
import shutil
from pathlib import Path

import pytest
from test_synthetic_source import person

from i2l_lab.synthetic.generate import write_pictures
from i2l_meshnet.bodies import Body, load_body
from i2l_meshnet.data.sources import Source, open_source
from i2l_meshnet.data.sources.synthetic import synthetic_source
from i2l_meshnet.data.sources.toy import open_toy
from i2l_meshnet.errors import InputError
from i2l_meshnet.evaluation.benchmark import keypoint_regressor
from i2l_meshnet.evaluation.protocols import PROTOCOLS
from i2l_meshnet.evaluation.published_sets import PublishedSet
from i2l_meshnet.geometry.lixel import LixelGrid
from i2l_meshnet.training.data import SYNTHETIC, can_train, dataset_splits

PAGE = Path(__file__).parents[2] / "docs" / "data.md"
BODIES = "smpl", "mano", "anny", "toy"
OWN = "Custom"
"""What it trains depends on the user's annotations."""


def opened(name: str, root: Path, split: str) -> Source:
    if name == "Toy":
        return open_toy(root, split, 2)
    return synthetic_source(root / name, split) if name == SYNTHETIC else open_source(name, root, split, True)


def evaluation(name: str, root: Path, body: Body, body_directory: Path) -> str:
    """What `evaluate` does with a network of a body; empty if it refuses the network."""
    try:
        if name == SYNTHETIC:
            keypoint_regressor(body, name)
            return "evaluates"
        if name not in PROTOCOLS:
            return ""
        source = opened(name, root, PROTOCOLS[name].split)
        data = PublishedSet(source, PROTOCOLS[name], body, root, body_directory).scored(LixelGrid(), False)
    except InputError:
        return ""
    if data.scorer is not None:
        return "evaluates"
    return "predicts for the server" if data.submits else "draws"


def cell(name: str, root: Path, body: Body, body_directory: Path) -> str:
    source = opened(name, root, "train")
    stages = [stage for stage in ("lixel", "param") if can_train(source, body, stage)]
    parts = [f"trains {' and '.join(stages)}" if stages else "", evaluation(name, root, body, body_directory)]
    return ", ".join(filter(None, parts)) or "refused"


@pytest.fixture
def root(dataset_root: Path, tmp_path: Path) -> Path:
    """The tiny datasets, and one person each of SURREAL and of the synthetic images."""
    root = tmp_path / "data"
    shutil.copytree(dataset_root, root)
    (root / "SURREAL").mkdir()
    camera = {"focal": [600, 600], "princpt": [160, 120]}
    image = {"id": 1, "width": 320, "height": 240, "file_name": "run0/walk/1.jpg", "cam_param": camera}
    fit = {"pose": [0.0] * 72, "shape": [0.0] * 10, "trans": [0.0, 0.0, 5.0], "gender": "female"}
    points = {"joint_img": [[160.0, 120.0]] * 24, "joint_cam": [[0.0, 0.0, 5.0]] * 24}
    annotation = {"id": 1, "image_id": 1, "bbox": [100, 50, 100, 150], "smpl_param": fit, **points}
    for split in ("train", "val"):
        (root / "SURREAL" / f"{split}.json").write_text(json.dumps({"images": [image], "annotations": [annotation]}))
    (root / SYNTHETIC).mkdir()
    write_pictures(root / SYNTHETIC / "train_00000.npz", [person(6.0)])
    return root


def test_the_page_has_the_table_of_the_code(root: Path, body_directory: Path) -> None:
    bodies = [load_body(name, body_directory) for name in BODIES]
    lines = [f"| dataset | {' | '.join(BODIES)} |", "|---" * (len(BODIES) + 1) + "|"]
    for name in dataset_splits():
        if name != OWN:
            lines.append(f"| {name} | {' | '.join(cell(name, root, body, body_directory) for body in bodies)} |")
    table = "\n".join(lines)
    assert table in PAGE.read_text(), f"docs/data.md must have this table:\n{table}"
