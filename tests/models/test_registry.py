"""Backbones and heads of a user's own: named by the configuration, and refused where they are unknown."""

from pathlib import Path

import pytest
import torch
from torch import nn

from i2l_meshnet.bodies import load_body
from i2l_meshnet.errors import InputError
from i2l_meshnet.models import assembly, checkpoint
from i2l_meshnet.models.loading import load_network
from i2l_meshnet.models.published import BACKBONES, HEADS, run_code

CODE = """
import functools

import torch
from torch import nn

from i2l_meshnet.models.lixel_head import LixelHead
from i2l_meshnet.models.published import BACKBONES, HEADS, Backbone


class Stages(nn.Module):
    deep_channels = 8

    def __init__(self):
        super().__init__()
        self.deep = nn.Conv2d(64, 8, 8, 8)

    def forward(self, early):
        return self.deep(early)


class Image(Stages):
    def __init__(self):
        super().__init__()
        self.early = nn.Conv2d(3, 64, 4, 4)

    def forward(self, image):
        early = self.early(image)
        return early, self.deep(early)


BACKBONES["patches"] = Backbone(Image, Stages)
HEADS["thin"] = functools.partial(LixelHead, channels=4)
"""


def test_parts_of_a_file_are_built_saved_and_loaded(tmp_path: Path) -> None:
    toy = load_body("toy")
    code, path = tmp_path / "parts.py", tmp_path / "own.safetensors"
    code.write_text(CODE)
    run_code(code)
    try:
        config = assembly.published_config(toy, "patches", head="thin")
        network = assembly.build(config, toy).eval()
        checkpoint.save(network, path)
        loaded, _, metadata = load_network(path)
        image = torch.rand(1, 3, 256, 256)
        torch.testing.assert_close(loaded(image).vertices, network(image).vertices, rtol=0, atol=0)
        assert (metadata.network.backbone, metadata.network.head) == ("patches", "thin")
    finally:
        del BACKBONES["patches"], HEADS["thin"]
    with pytest.raises(InputError) as caught:
        load_network(path)
    assert caught.value.argument == "code"


def test_a_network_with_undescribed_parts_is_not_saved(tmp_path: Path) -> None:
    toy = load_body("toy")
    network = assembly.build(assembly.published_config(toy, "resnet18"), toy)
    network.pose_net.head = nn.Linear(2, 2)
    with pytest.raises(InputError):
        checkpoint.save(network, tmp_path / "own.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", [None, "1 / 0", "import nothing_of_this_name"])
def test_code_that_fails_is_one_line(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "parts.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError) as caught:
        run_code(path)
    assert caught.value.argument == "code"
    assert str(path) in str(caught.value)
