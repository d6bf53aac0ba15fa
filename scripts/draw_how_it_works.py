"""Draws the figures of docs/how-it-works.md: the pipelines, the heatmaps of a joint, the soft-argmax.

    python scripts/draw_how_it_works.py --out docs/images

The joint's heatmaps are those that the shipped network makes of examples/standing_phone.jpg (its detector is
fetched if it is missing).
"""

import argparse
from pathlib import Path
from unittest import mock

import cv2
import matplotlib
import numpy as np
import torch

from i2l_meshnet import MeshPredictor, assets
from i2l_meshnet.geometry.crop import Crop, warp_image
from i2l_meshnet.geometry.lixel import soft_argmax
from i2l_meshnet.models import keypoint
from i2l_meshnet.prediction.images import read_photo

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

JOINT = "R_Wrist"
BLUE, ORANGE, GREY = "#3f51b5", "#e8710a", "#5f6368"


def draw_pipelines(path: Path) -> None:
    """The published network and the default one, box by box."""
    figure, axes = plt.subplots(2, 1, figsize=(11, 5.2))
    published = ["person crop\n256 x 256", "ResNet-50", "lixel head\njoints", "Gaussians\n+ early\nfeature"]
    published += ["second\nResNet-50", "lixel head\nmesh", "regressor:\npose, shape"]
    default = ["person crop\n256 x 192", "RTMPose-s:\n26 keypoints", "MLP trunk", "lixel head\njoints"]
    default += ["trunk\n+ joints", "lixel head\nmesh", "regressor:\npose, shape;\na fit to the\nkeypoints"]
    for axis, title, boxes in (
        (axes[0], "The published network (pixels all the way)", published),
        (axes[1], "The default model (keypoints lifted to a mesh)", default),
    ):
        axis.set_title(title, loc="left", fontsize=12)
        axis.set_xlim(0, 11)
        axis.set_ylim(0, 1.6)
        axis.axis("off")
        for index, text in enumerate(boxes):
            left = 0.1 + index * 1.56
            colour = ORANGE if "lixel" in text else BLUE
            axis.add_patch(
                FancyBboxPatch((left, 0.3), 1.15, 1.0, "round,pad=0.05", facecolor=colour, alpha=0.14, edgecolor=colour)
            )
            axis.text(left + 0.575, 0.8, text, ha="center", va="center", fontsize=10)
            if index:
                axis.annotate(
                    "", (left - 0.06, 0.8), (left - 0.35, 0.8), arrowprops={"arrowstyle": "-|>", "color": GREY}
                )
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def joint_heatmaps(photo_path: Path) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """The crop of the best person, the three heatmaps (probabilities) of `JOINT`, and its lixels."""
    predictor = MeshPredictor.load()
    photo = read_photo(photo_path)
    box = predictor(photo_path)[0].box
    size = predictor.network.grid.crop_size
    crop = warp_image(photo.pixels, Crop.around(box, size, clip_to=(photo.width, photo.height)).affine, size)
    image = torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255
    seen: list[torch.Tensor] = []

    def watched(heatmaps: torch.Tensor) -> torch.Tensor:
        seen.append(heatmaps)
        return soft_argmax(heatmaps)

    with mock.patch.object(keypoint, "soft_argmax", watched), torch.inference_mode():
        output = predictor.network(image)
    index = predictor.body.skeleton.joints.index(JOINT)
    heatmaps = [logits[0, index].softmax(-1).numpy() for logits in seen]
    return crop, heatmaps, output.joints[0, index].numpy()


def draw_heatmaps(path: Path, crop: np.ndarray, heatmaps: list[np.ndarray], lixel: np.ndarray) -> None:
    """The crop on the lixel grid with the x heatmap below, the y heatmap beside and the z heatmap apart."""
    bins = len(heatmaps[0])
    height, width = crop.shape[:2]
    # The grid reaches half a crop beyond each side; what lies there is shown as empty paper.
    canvas = np.full((2 * height, 2 * width, 3), 235, np.uint8)
    canvas[height // 2 : height // 2 + height, width // 2 : width // 2 + width] = crop
    canvas = cv2.resize(canvas, (640, 640 * height // width))
    figure = plt.figure(figsize=(10.5, 7.0))

    def place(left: float, bottom: float, wide: float, high: float) -> Axes:
        """Axes by inches, so that the heatmaps stand exactly beside the picture's bins."""
        return figure.add_axes((left / 10.5, bottom / 7.0, wide / 10.5, high / 7.0))

    picture = place(0.1, 1.6, 5.0 * width / height, 5.0)
    picture.imshow(canvas, extent=(0, bins, bins, 0), aspect="auto")
    picture.axvline(lixel[0] + 0.5, color=ORANGE)
    picture.axhline(lixel[1] + 0.5, color=ORANGE)
    picture.plot(lixel[0] + 0.5, lixel[1] + 0.5, "o", color=ORANGE, markersize=9, markerfacecolor="none")
    picture.set_title(f"the crop on the grid of {bins} x {bins} bins", fontsize=11)
    picture.set_xticks([])
    picture.set_yticks([])
    centres = np.arange(bins) + 0.5
    below = place(0.1, 0.5, 5.0 * width / height, 1.0)
    below.bar(centres, heatmaps[0], 1.0, color=BLUE)
    below.axvline(lixel[0] + 0.5, color=ORANGE)
    below.set_xlabel("x: one heatmap of 64 bins")
    beside = place(0.2 + 5.0 * width / height, 1.6, 1.0, 5.0)
    beside.barh(centres, heatmaps[1], 1.0, color=BLUE)
    beside.axhline(lixel[1] + 0.5, color=ORANGE)
    beside.set_title("y", fontsize=11)
    depth = place(6.2, 1.6, 4.0, 5.0)
    depth.bar(centres, heatmaps[2], 1.0, color=BLUE)
    depth.axvline(lixel[2] + 0.5, color=ORANGE)
    depth.set_title("z: depth against the pelvis", fontsize=11)
    depth.set_xlabel("nearer     bin (32 is the pelvis)     farther")
    for axis in (below, beside, depth):
        _plain(axis)
    below.set_xlim(0, bins)
    beside.set_ylim(bins, 0)
    beside.spines["bottom"].set_visible(False)
    beside.spines["left"].set_visible(True)
    depth.set_xticks([0, 16, 32, 48, 64])
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def draw_soft_argmax(path: Path) -> None:
    """What soft-argmax reads between the bins, and where two peaks lead it astray."""
    bins = np.arange(64)

    def softmax(logits: np.ndarray) -> np.ndarray:
        weights = np.exp(logits - logits.max())
        return weights / weights.sum()

    one = softmax(-((bins - 23.4) ** 2) / (2 * 2.5**2))
    two = softmax(np.logaddexp(-((bins - 18) ** 2) / 12.5, np.log(0.8) - ((bins - 45) ** 2) / 12.5))
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 3.2), sharey=True)
    for axis, heatmap, title in (
        (axes[0], one, "one peak between two bins"),
        (axes[1], two, "two peaks: between them, where nothing is"),
    ):
        value = float(heatmap @ bins)
        axis.bar(bins, heatmap, 1.0, color=BLUE)
        axis.axvline(heatmap.argmax(), color=GREY, linestyle=":", label=f"argmax {heatmap.argmax()}")
        axis.axvline(value, color=ORANGE, label=f"soft-argmax {value:.1f}")
        axis.set_title(title, fontsize=11)
        axis.legend(frameon=False)
        _plain(axis)
        axis.set_xticks([0, 16, 32, 48, 63])
        axis.set_xlabel("bin")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _plain(axis: Axes) -> None:
    axis.set_yticks([])
    axis.set_xticks([])
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    assets.ensure("detector")
    draw_pipelines(out / "pipelines.png")
    draw_soft_argmax(out / "soft_argmax.png")
    draw_heatmaps(out / "heatmaps.png", *joint_heatmaps(Path("examples/standing_phone.jpg")))


if __name__ == "__main__":
    main()
