"""The regression pictures: `python -m i2l_lab.tools.regression_pictures` writes what the default model answers to them.

To be run again, and the changed tests/regression/expected.npz committed, when the default model changes on purpose; it
prints how far the answers have moved. The pictures stay the same. `--draw` makes them anew (needs the extra [lab],
fetches the asset makehuman): people of our own generator in garments, hair and skins that are CC0, before backgrounds
made of numbers.
"""

import argparse
import json
import platform
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
from jaxtyping import Float32

from i2l_lab.synthetic.cameras import ViewSampler
from i2l_lab.synthetic.clothes import BaseMesh, Wardrobe
from i2l_lab.synthetic.pictures import Backgrounds, PictureMaker
from i2l_lab.synthetic.poses import PoseBank, PoseMix, PoseSampler
from i2l_lab.synthetic.samples import BodySampler
from i2l_lab.synthetic.shapes import ShapeSampler
from i2l_meshnet import assets
from i2l_meshnet.bodies.library import load_body
from i2l_meshnet.io import atomic_path, write_bytes
from i2l_meshnet.prediction.images import read_photo
from i2l_meshnet.prediction.intrinsics import Intrinsics
from i2l_meshnet.prediction.predictor import MeshPredictor

FOLDER = Path(__file__).parents[3] / "tests" / "regression"
FACTS, EXPECTED, MADE_ON = "pictures.json", "expected.npz", "made_on"
"""Boxes and cameras; the answers; the entry of the answers that names the processor and PyTorch that made them."""
COUNT, SEED = 20, 2026


def answers(batch_size: int = COUNT) -> dict[str, np.ndarray]:
    """What the default model says of the pictures, float32, people along the first axis.

    keypoints: x, y (px) and confidence. joints: x, y (px). root: of the parametric mesh in the camera's frame, m.
    lixel_vertices, param_vertices: of the two meshes against that root, m.
    """
    predictor = MeshPredictor.load(device="cpu", detect=False, batch_size=batch_size)
    subjects = [
        predictor.prepare(
            read_photo(FOLDER / name),
            name,
            boxes=[facts["box"]],
            intrinsics=Intrinsics(matrix=(*facts["focal"], *facts["center"])),
        )
        for name, facts in json.loads((FOLDER / FACTS).read_text(encoding="utf-8")).items()
    ]
    people = [person for picture in predictor.predict(subjects) for person in picture]
    arrays: dict[str, list[np.ndarray]] = {}
    for person in people:
        assert person.keypoints is not None
        assert person.parametric_mesh is not None
        root = person.parametric_mesh.joints[person.body.skeleton.root_index]
        for name, value in (
            ("keypoints", person.keypoints),
            ("joints", person.joints_image),
            ("root", root),
            ("lixel_vertices", person.lixel_mesh.vertices - root),
            ("param_vertices", person.parametric_mesh.vertices - root),
        ):
            arrays.setdefault(name, []).append(value.float().numpy())
    return {name: np.stack(values) for name, values in arrays.items()}


def differences(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> dict[str, float]:
    """The largest difference of any number, by name."""
    return {name: float(np.abs(found[name] - expected[name]).max()) for name in found}


def machine() -> str:
    """The processor and PyTorch that make the answers."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    name = capabilities.get("cpu_name", platform.processor() or platform.machine())
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}, PyTorch {torch.__version__}"


class Places:
    """Backgrounds of soft colours, made of numbers."""

    def patch(self, rng: np.random.Generator, size: int, low: float, high: float) -> Float32[np.ndarray, "s s 3"]:
        """A square of blurred noise, coarse and fine; RGB of 255."""
        layers = [
            cv2.resize(
                rng.normal(0, 1, (cells, cells, 3)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC
            )
            for cells in (4, 16)
        ]
        return np.clip(128 + 45 * layers[0] + 15 * layers[1], 0, 255)


def free_wardrobe(folder: Path, base: BaseMesh) -> Wardrobe:
    """What is CC0 of the wardrobe; where a kind has none, a suit or shoes stand in for it."""
    wardrobe = Wardrobe(folder, base)
    free = {
        kind: [garment for garment in garments if garment.licence.startswith("CC0")]
        for kind, garments in wardrobe.garments.items()
    }
    for kind, garments in free.items():
        part, who = kind.split(":")
        worn = part in ("dress", "bottom", "top", "coat")
        wardrobe.garments[kind] = (
            garments or free[f"suit:{who}" if worn else "shoes:any" if who == "any" else f"hair:{who}"]
        )
    return wardrobe


def draw() -> None:
    """Makes the pictures and their boxes and cameras."""
    body, makehuman = load_body("anny"), assets.ensure("makehuman")
    poses = PoseSampler(body, PoseBank.build(body, None, procedural=2_000), PoseMix(sources=(("procedural", 1.0),)))
    base = BaseMesh(body.bones)
    sampler = BodySampler(poses, ShapeSampler(body), ViewSampler(body))
    maker = PictureMaker(body, sampler, base, free_wardrobe(makehuman, base), cast(Backgrounds, Places()))
    facts = {}
    for index in range(COUNT):
        picture = maker.make(SEED, index)
        name = f"{index:02d}.jpg"
        write_bytes(FOLDER / name, picture.jpeg.tobytes())
        facts[name] = {
            what: [round(float(value), 2) for value in getattr(picture, what)] for what in ("box", "focal", "center")
        }
    write_bytes(FOLDER / FACTS, (json.dumps(facts, indent=1) + "\n").encode())


def main() -> None:
    parser = argparse.ArgumentParser(description="Write what the default model answers to the regression pictures.")
    parser.add_argument("--draw", action="store_true", help="make the pictures anew first")
    if parser.parse_args().draw:
        draw()
    path, found = FOLDER / EXPECTED, answers()
    if path.exists():
        with np.load(path) as known:
            for name, moved in differences(found, dict(known)).items():
                print(f"{name}: moved by up to {moved:.3g} since {known[MADE_ON]}")
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **found, **{MADE_ON: np.array(machine())})  # pyright: ignore[reportArgumentType]
    print(f"written to {path}")


if __name__ == "__main__":
    main()
