"""Many fits on one picture, to be looked at after every change: `python -m i2l_lab.tools.contact_sheet [PICTURE...]`.

Each photo gets a row of panels: the lixel mesh on it, the parametric mesh on it, and both from the side (the first
person only, the camera to the left; degrees: see `tilt`). Without pictures, the photos are the bundled examples and the
ten people of the asset `openpeople`, which is fetched first; all are under the MIT licence and may be shown.
docs/images/contact_sheet.jpg is made so.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import tyro
from jaxtyping import Float, UInt8
from tyro.conf import Positional

from i2l_meshnet import assets
from i2l_meshnet.errors import InputError, UserError
from i2l_meshnet.evaluation.overlays import captioned
from i2l_meshnet.pictures import write_picture
from i2l_meshnet.prediction.images import find_pictures
from i2l_meshnet.prediction.overlay import draw_overlay, draw_view
from i2l_meshnet.prediction.predictor import MeshPredictor
from i2l_meshnet.prediction.results import PicturePrediction, Prediction
from i2l_meshnet.skeletons import Skeleton

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
BUNDLED = ("P001", "P004", "P009")
"""The people whose outdoor pictures are among the examples: these are shown in the studio."""
HORIZONS = {
    "standing_jacket": 0.29,
    "standing_phone": 0.46,
    "P002": 0.285,
    "P003": 0.42,
    "P007": 0.395,
    "P008": 0.27,
    "P010": 0.315,
}
"""Where the horizon lies, as a part of the photo's height from above: read by eye a little above where the farthest
ground ends, to within 0.02, or a degree. The other photos show walls, or a studio."""
KINDS = ("lixel", "param")
PAPER = 238
SMALL = 0.4
"""People less high than this part of the highest one stand in the background: they are left out."""


@dataclasses.dataclass(frozen=True)
class SheetOptions:
    """Draw the fits of many photos on one picture."""

    pictures: Positional[tuple[str, ...]] = ()
    """Photos, folders or patterns; the bundled examples and the people of `openpeople` if there are none."""
    out: Path = Path("docs/images/contact_sheet.jpg")
    """The picture to write, .jpg or .png."""
    weights: Path | None = None
    """Checkpoint; the network that ships with the package if not given."""
    columns: int = 2
    """Photos side by side."""
    height: int = 280
    """Height of a panel, pixels."""
    quality: int = 82
    """Of the JPEG."""


def default_pictures() -> list[Path]:
    """The bundled examples, and each of the ten people in a picture that is not among them."""
    people = sorted(assets.ensure("openpeople").glob("openpeople/data/curated/P*/assets"))
    chosen = [("studio" if person.parent.name in BUNDLED else "amateur") + "_posture.jpg" for person in people]
    return [*sorted(EXAMPLES.glob("*.jpg")), *(person / name for person, name in zip(people, chosen, strict=True))]


def draw_row(
    found: PicturePrediction, height: int, name: str, pitch: float | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """The panels of one photo, all of `height` and two thirds as wide, with captions below.

    pitch: degrees that the camera looks down, if that is known.
    """
    width = height * 2 // 3
    chosen = shown_people(found)
    if not chosen:
        blank = np.full((height, width, 3), PAPER, np.uint8)
        return np.hstack([captioned(blank, text) for text in (f"{name}: nobody found", "", "", "")])
    boxes = np.array([found[i].box.numpy() for i in chosen])
    low, high = boxes[:, :2].min(0), (boxes[:, :2] + boxes[:, 2:]).max(0)
    scale = float(min(np.array([width, height]) / (1.15 * (high - low))))
    photo = cv2.resize(found.pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    corner = np.round((low + high) / 2 * scale - np.array([width, height]) / 2).astype(int)
    focal, center = (value.double().numpy() for value in (found.camera.focal, found.camera.center))
    confidence = ", ".join(f"{found[i].confidence:.2f}" for i in chosen[:3] if found[i].confidence is not None)
    overlays, views = [], []
    for kind in KINDS:
        if any(kind == "param" and found[i].parametric_mesh is None for i in chosen):
            continue
        surfaces = [found[i].surface(kind) for i in chosen]
        drawn = draw_overlay(photo, surfaces, focal * scale, (center + 0.5) * scale - 0.5, chosen)
        overlays.append(
            captioned(_window(drawn, corner, (height, width)), f"{name} {confidence}" if not overlays else kind)
        )
        view = _letterboxed(draw_view(surfaces[:1], "side", chosen[:1]), (height, width))
        degrees = tilts(found[chosen[0]])[kind]
        lean = "deg" if pitch is None else f"(lean {degrees - pitch:+.0f})"
        views.append(captioned(view, f"{kind} {degrees:+.0f} {lean}"))
    return np.hstack(overlays + views)


def shown_people(found: PicturePrediction) -> list[int]:
    """Who is shown: reliable predictions, if there are any, and nobody in the background."""
    chosen = [i for i, person in enumerate(found) if person.reliable] or list(range(len(found)))
    highest = max((float(found[i].box[3]) for i in chosen), default=0.0)
    return [i for i in chosen if found[i].box[3] >= SMALL * highest]


def camera_pitch(found: PicturePrediction, horizon: float) -> float:
    """How far the camera looks down, degrees, by where the horizon lies (a part of the photo's height)."""
    above = float(found.camera.center[1]) - horizon * len(found.pixels)
    return float(np.degrees(np.arctan2(above, float(found.camera.focal[1]))))


def tilts(person: Prediction) -> dict[str, float]:
    """The `tilt` of each kind of mesh that there is."""
    meshes = dict(zip(KINDS, (person.lixel_mesh, person.parametric_mesh), strict=True))
    return {kind: tilt(mesh.joints.numpy(), person.body.skeleton) for kind, mesh in meshes.items() if mesh is not None}


def tilt(joints: Float[np.ndarray, "j 3"], skeleton: Skeleton) -> float:
    """How far the line from ankles to shoulders leans out of the picture's plane, degrees, positive to the camera.

    An upright person before a level camera has 0; before one that looks down by some degrees, so many: without that
    pitch, it is how far they lean.
    """
    ankles, shoulders = (
        np.mean([joints[skeleton.index(f"{side}_{joint}")] for side in "LR"], 0) for joint in ("Ankle", "Shoulder")
    )
    _, down, away = shoulders - ankles
    return float(np.degrees(np.arctan2(-away, -down)))


def draw_sheet(rows: list[UInt8[np.ndarray, "_ _ 3"]], columns: int) -> UInt8[np.ndarray, "h w 3"]:
    """Rows of panels in a grid, filled with paper."""
    height, width = rows[0].shape[0], max(row.shape[1] for row in rows)
    sheet = np.full((-(-len(rows) // columns) * height, columns * (width + 6) - 6, 3), PAPER, np.uint8)
    for i, row in enumerate(rows):
        top, left = i // columns * height, i % columns * (width + 6)
        sheet[top : top + height, left : left + row.shape[1]] = row
    return sheet


def _window(
    picture: UInt8[np.ndarray, "h w 3"], corner: np.ndarray, size: tuple[int, int]
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """A window of a picture from `corner` (x, y) on, paper where the picture ends."""
    result = np.full((*size, 3), PAPER, np.uint8)
    start, end = np.maximum(corner, 0), np.minimum(corner + size[::-1], picture.shape[1::-1])
    part = picture[start[1] : end[1], start[0] : end[0]]
    left, top = start - corner
    result[top : top + part.shape[0], left : left + part.shape[1]] = part
    return result


def _letterboxed(picture: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h2 w2 3"]:
    scale = min(size[0] / picture.shape[0], size[1] / picture.shape[1])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[: size[0], : size[1]]
    corner = (np.array(small.shape[1::-1]) - size[::-1]) // 2
    return _window(small, corner, size)


def make_sheet(options: SheetOptions) -> None:
    """Predicts and draws all photos."""
    if options.columns < 1 or options.height < 32:
        raise InputError("--columns is at least 1, --height at least 32")
    if options.pictures:
        named = [(picture.path, picture.path.stem) for picture in find_pictures(options.pictures)]
    else:
        # The people's pictures are all called alike, but for the folder.
        named = [
            (path, path.stem if path.parent == EXAMPLES else path.parent.parent.name) for path in default_pictures()
        ]
    assets.ensure("detector")
    predictor = MeshPredictor.load(options.weights)
    rows: list[UInt8[np.ndarray, "h w 3"]] = []
    leans: list[dict[str, float]] = []
    for path, name in named:
        found = predictor(path)
        pitch = None if options.pictures or name not in HORIZONS else camera_pitch(found, HORIZONS[name])
        rows.append(draw_row(found, options.height, name, pitch))
        if pitch is not None:
            leans += [{kind: a - pitch for kind, a in tilts(found[i]).items()} for i in shown_people(found)]
    write_picture(options.out, draw_sheet(rows, options.columns), options.quality)
    print(f"{options.out}: {len(rows)} photos")
    for kind in KINDS:
        degrees = np.abs([lean[kind] for lean in leans if kind in lean])
        if len(degrees):
            of = f"{len(degrees)} people before a known horizon"
            print(f"{kind}: {of} lean by {degrees.mean():.1f} degrees on average, {degrees.max():.1f} at most")


def main(options: Annotated[SheetOptions, tyro.conf.arg(name="")]) -> None:
    """Draw the fits of many photos on one picture, to be looked at."""
    try:
        make_sheet(options)
    except UserError as error:
        sys.exit(f"contact_sheet: {error}")


if __name__ == "__main__":
    tyro.cli(main)
