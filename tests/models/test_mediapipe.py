"""MediaPipe's hand networks: layers, crops of hands, and comparison with MediaPipe's own runtime."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from safetensors.torch import load_file

from i2l_meshnet.models.loading import HAND_WEIGHTS, PALM_WEIGHTS, load_network, shipped_weights
from i2l_meshnet.models.mediapipe import (
    LANDMARK_CROP,
    PALM_CROP,
    PalmNet,
    SameConv2d,
    crop_around,
)


@pytest.fixture
def hand() -> torch.Tensor:
    """An open hand, fingers up, 21 points in pixels: wrist at (100, 200), the bases of the fingers 60 px above it."""
    points = torch.empty(21, 2)
    points[0] = torch.tensor([100.0, 200.0])
    for finger in range(5):
        for joint in range(4):
            points[1 + 4 * finger + joint] = torch.tensor([70.0 + 15 * finger, 140.0 - 20 * joint])
    return points


def test_a_crop_has_the_fingers_above_the_wrist(hand: torch.Tensor):
    for angle in (0.0, 0.7, 3.0, -2.2):
        rotation = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        points = hand @ rotation.T + 300
        seen = crop_around(points).to_crop(points)
        knuckles = seen[[5, 9, 13]].mean(0)
        assert abs(float(knuckles[0] - seen[0, 0])) < 3
        assert knuckles[1] < seen[0, 1] - 30
        assert ((seen > 0) & (seen < LANDMARK_CROP[0])).all()
        # The content of the crop does not depend on the rotation of the hand.
        torch.testing.assert_close(seen, crop_around(hand).to_crop(hand), atol=1e-2, rtol=0)


def test_odd_padding_is_at_the_end():
    """TensorFlow's "same" padding: a 3x3 kernel with stride 2 on 4 pixels has no padding at the start."""
    conv = SameConv2d(1, 1, 3, 2, bias=False)
    torch.nn.init.ones_(conv.weight)
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, 0, 0] = 1
    with torch.inference_mode():
        assert conv(image).tolist() == [[[[1.0, 0.0], [0.0, 0.0]]]]


def test_anchors_of_the_palm_detector():
    network = PalmNet()
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    with torch.inference_mode():
        scores, positions = network(torch.zeros(1, 3, *PALM_CROP))
    assert scores.shape == (1, 2016)
    assert positions.shape == (1, 2016, 9, 2)
    assert (scores == 0.5).all()
    # Two anchors at each position of the fine map, six at each of the coarse map. Row 1 is the size.
    assert positions[0, [0, 1, 2, 48], 0].tolist() == [[4, 4], [4, 4], [12, 4], [4, 12]]
    assert positions[0, [1152, 1157, 1158], 3].tolist() == [[8, 8], [8, 8], [24, 8]]
    assert (positions[0, :, 1] == 0).all()


def test_equals_mediapipe_s_runtime(fetched: Callable[[str], Path]):
    """Reference: the published files, run by ai-edge-litert. Both have 16-bit weights."""
    folder = fetched("mediapipe")

    def reference(name: str, image: np.ndarray) -> list[np.ndarray]:
        interpreter = Interpreter(str(folder / "mediapipe" / "modules" / name))
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
        interpreter.invoke()
        return [interpreter.get_tensor(output["index"])[0] for output in interpreter.get_output_details()]

    landmarks = load_network(shipped_weights(HAND_WEIGHTS))[0].pose_net.get_submodule("estimator")
    image = np.random.default_rng(0).random((1, *LANDMARK_CROP, 3), np.float32)
    points, presence, right, world = reference("hand_landmark/hand_landmark_full.tflite", image)
    with torch.inference_mode():
        found = landmarks(torch.from_numpy(image).permute(0, 3, 1, 2))
    np.testing.assert_allclose(found.points.flatten(), points, atol=1e-3)
    np.testing.assert_allclose([float(found.presence), float(found.right)], [presence[0], right[0]], atol=1e-4)
    np.testing.assert_allclose(found.world.flatten(), world, atol=1e-5)

    palm = PalmNet().eval()
    palm.load_state_dict({key: value.float() for key, value in load_file(shipped_weights(PALM_WEIGHTS)).items()})
    image = np.random.default_rng(0).random((1, *PALM_CROP, 3), np.float32)
    _, scores = reference("palm_detection/palm_detection_full.tflite", image)
    with torch.inference_mode():
        own, _ = palm(torch.from_numpy(image).permute(0, 3, 1, 2))
    np.testing.assert_allclose(own[0], 1 / (1 + np.exp(-scores[:, 0])), atol=1e-4)
