"""`predict` on a photo of three people and on a clip: the content of every file."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from golden import Tolerance
from scenes import clip, three_people
from surfaces import meshnet
from written import folder, read_parquet

TOLERANCES = [
    # Pixels at the edge of a mesh may differ: a cell of 32 x 32 changes by some grey levels, in a clip's small frame
    # by more.
    Tolerance(r"\.jpg/means", 4.0),
    Tolerance(r"\.mp4/means", 10.0),
    # A hand's crop depends on the wrist keypoint, a tracked box on the previous mesh: rounding is amplified.
    Tolerance(r"hand.*crop_affine", 4.0),
    Tolerance(r"(hands/|hand_)", 0.1, 0.05),
    Tolerance("reprojection_error", 0.02, 0.01),
    Tolerance(r"walk.*box/", 5.0),
    Tolerance(r"bvh/motion", 0.8),
    Tolerance(r"walk", 0.03, 0.01),
    Tolerance(r"(pixels|keypoints|joints_image|box|crop_affine)", 0.1, 1e-3),
    Tolerance(".*", 2e-3, 1e-3),
]


def test_a_photo_of_three_people_with_hands(compare: Callable[..., None], tmp_path: Path) -> None:
    photo = three_people(tmp_path / "three.png")
    formats = ("obj", "ply", "glb", "rigged-glb")
    meshnet("predict", photo, "--out", tmp_path / "out", "--hands", "--formats", *formats, "--device", "cpu")
    found = folder(tmp_path / "out")
    assert len(found["three.json"]["people"]) == 4  # A picture on the wall is the fourth.
    compare("photo", found, TOLERANCES)


@pytest.mark.slow
def test_a_table_of_given_boxes(compare: Callable[..., None], tmp_path: Path) -> None:
    photo = three_people(tmp_path / "three.png")
    (tmp_path / "boxes.json").write_text(json.dumps([[30, 20, 250, 440], [345.5, 30, 260, 430.25]]))
    options = ("--boxes", tmp_path / "boxes.json", "--fov", 40, "--max-people", 2, "--batch-size", 1)
    meshnet("predict", photo, "--parquet", tmp_path / "table", "--device", "cpu", *options)
    (part,) = (tmp_path / "table").glob("*.parquet")
    found = read_parquet(part)
    for row in found["rows"]:
        row["picture"] = Path(row["picture"]).name
    compare("table", found, TOLERANCES)


@pytest.mark.slow
@pytest.mark.parametrize("smooth", ["one-euro", "offline"])
def test_a_clip(smooth: str, compare: Callable[..., None], tmp_path: Path) -> None:
    film = clip(tmp_path / "walk.mkv")
    options = ["--smooth", smooth, "--formats", "glb", "bvh", "--device", "cpu", "--detect-every", 8]
    options += ["--save-vertices"] if smooth == "one-euro" else ["--no-pictures"]
    meshnet("predict", film, "--out", tmp_path / "out", *options)
    compare(f"clip_{smooth}", folder(tmp_path / "out"), TOLERANCES)
