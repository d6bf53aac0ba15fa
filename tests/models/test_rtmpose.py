"""RTMPose-s: comparison with onnxruntime, the decoder, and the reader of its file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from i2l_meshnet.errors import FileError
from i2l_meshnet.models.rtmpose import BINS_PER_PIXEL, RTMPose, decode_simcc, load_onnx

GOLDEN = [0.00057474, 0.0239047, -0.0161563, -0.00970514, 0.00839196, -0.0244697]


def peak(bins: int, at: float, height: float, width: float = 5.0) -> torch.Tensor:
    return height * torch.exp(-((torch.arange(bins) - at) ** 2) / (2 * width**2))


def test_the_decoder_finds_peaks_between_bins_and_the_lower_confidence():
    x, y = 100.3, 411.8
    rival = peak(384, 300, 0.85)
    found = decode_simcc((peak(384, x, 0.9) + rival)[None, None], peak(512, y, 0.7)[None, None])
    np.testing.assert_allclose(found[0, 0], [x / BINS_PER_PIXEL, y / BINS_PER_PIXEL, 0.7], atol=0.05)
    high, low = peak(384, 50, 1.4)[None, None], -torch.ones(1, 1, 512)
    assert float(decode_simcc(high, peak(512, 9, 1.2)[None, None])[0, 0, 2]) == 1
    assert float(decode_simcc(high, low)[0, 0, 2]) == 0


def test_same_weights_give_the_same_numbers():
    """Golden: He-normal weights of seed 0, one image. It checks the wiring if the trained file is missing.

    Made by this code while the comparison with onnxruntime below passed. Tolerance: float32 through 44 layers.
    """
    model = RTMPose().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        spread = (2 / parameter[0].numel()) ** 0.5 if parameter.ndim > 1 else 0.1
        parameter.data = torch.randn(parameter.shape, generator=generator) * spread
    image = torch.linspace(0, 1, 3 * 256 * 192).reshape(1, 3, 256, 192).sin()
    with torch.inference_mode():
        x, y = model.heatmaps(image)
    np.testing.assert_allclose([*x[0, 3, :3], *y[0, 25, -3:]], GOLDEN, rtol=1e-3, atol=1e-6)


def test_other_files_raise_an_error(tmp_path: Path):
    path = tmp_path / "broken.onnx"
    path.write_text("not a network")
    with pytest.raises(FileError, match=r"broken\.onnx"):
        load_onnx(path)


def test_equals_onnxruntime(fetched: Callable[[str], Path]):
    """The exported file run by onnxruntime is the reference; 1e-4 of heatmaps of size 1."""
    path = fetched("rtmpose")
    model = load_onnx(path)
    image = torch.rand(2, 3, 256, 192, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found = model.heatmaps(image)
    session = onnxruntime.InferenceSession(path)
    wanted = session.run(None, {"input": ((image - model.mean) / model.std).numpy()})
    for own, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(own, other, atol=1e-4)
