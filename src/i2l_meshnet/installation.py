"""What is installed and where it comes from, for bug reports."""

import importlib.util
import json
import os
import platform
from collections.abc import Iterator
from importlib import metadata, resources
from pathlib import Path

import torch

from i2l_meshnet import assets
from i2l_meshnet.bodies import BODIES, load_body
from i2l_meshnet.errors import UserError
from i2l_meshnet.models import checkpoint
from i2l_meshnet.models.loading import is_snapshot, read_weights, trained_stage
from i2l_meshnet.precision import supported_precisions

_LIBRARIES = "torch numpy numba scipy opencv-python-headless onnxruntime pillow tyro".split()
_EXTRAS = {
    "heic": "pillow_heif",
    "lab": "anny",
    "onnx": "onnxscript",
    "openvino": "openvino",
    "parquet": "pyarrow",
    "plots": "matplotlib",
    "ray": "ray",
    "serve": "fastapi",
    "train": "lightning_fabric",
    "view": "viser",
}
"""Extra → a module that only this extra installs."""


def report(body_directory: Path | None = None) -> Iterator[str]:
    """Lines about versions, devices, networks in the package, bodies and downloaded assets.

    body_directory: where the licensed files of SMPL and MANO are.
    """
    yield f"i2l-meshnet {metadata.version('i2l-meshnet')} in {resources.files('i2l_meshnet')}"
    yield f"Python {platform.python_version()} on {platform.platform()}"
    yield f"libraries: {', '.join(f'{name} {metadata.version(name)}' for name in _LIBRARIES)}"
    missing = [extra for extra, module in _EXTRAS.items() if importlib.util.find_spec(module) is None]
    yield f"extras installed: {', '.join(extra for extra in _EXTRAS if extra not in missing) or 'none'}"
    yield f"extras not installed: {', '.join(missing) or 'none'}"
    yield f"CPU: {_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads for torch"
    yield f"CPU precisions: {', '.join(supported_precisions())}"
    yield f"CUDA: {_cuda()}"
    yield "networks in the package:"
    for path in sorted(Path(str(resources.files("i2l_meshnet.models") / "data")).glob("*.safetensors")):
        yield f"  {path.name}: {_network(path)}"
    yield f"bodies (licensed files: {body_directory or os.environ.get('I2L_MESHNET_BODIES') or 'no folder named'}):"
    for name in BODIES:
        try:
            body = load_body(name, body_directory)
        except UserError as error:
            yield f"  {name:16}{error}"
        else:
            yield f"  {name:16}{body.joint_regressor.shape[1]} vertices, {len(body.skeleton)} joints, {body.licence}"
    yield f"assets in {assets.cache_folder()}:"
    for name, asset in assets.ASSETS.items():
        origin = ", ".join(f"{package.registry} {package.name} {package.version}" for package in asset.packages)
        try:
            found = assets.find(name) or "not fetched"
        except UserError as error:
            found = error
        yield f"  {name:16}{found}; from {origin}; {asset.licence}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    return named or platform.processor() or platform.machine()


def _cuda() -> str:
    if not torch.cuda.is_available():
        return f"no device (torch was built {f'for CUDA {torch.version.cuda}' if torch.version.cuda else 'without it'})"
    found = (torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count()))
    return ", ".join(f"{device.name}, {device.total_memory / 2**30:.0f} GiB" for device in found)


def _network(path: Path) -> str:
    try:
        found = checkpoint.read_metadata(path)
    except UserError:
        return f"{path.stat().st_size / 1e6:.1f} MB, weights of a helper network"
    return f"{found.network.kind} for {found.network.body}; licence {found.licence}; from {found.source}"


def describe_weights(path: Path) -> Iterator[str]:
    """Lines about a checkpoint or a published snapshot. Raise FileError for another file."""
    state, metadata = read_weights(path)
    network, extra = metadata.network, dict(metadata.extra)
    size, parameters = path.stat().st_size / 1e6, sum(tensor.numel() for tensor in state.values())
    kind = "published snapshot" if is_snapshot(path) else "checkpoint"
    yield f"{path}: {kind}, {size:.1f} MB, {len(state)} tensors, {parameters / 1e6:.1f} million values"
    yield f"network: {network.kind}, {network.backbone}, for the body {network.body}"
    yield f"output: {len(network.joints)} joints, {network.vertices} vertices, {network.bones} bones, " + (
        "with parameters" if network.regresses_parameters else "without parameters"
    )
    height, width = network.grid.crop_size
    yield f"input: crops of {height} x {width} pixels (height x width), {network.grid.depth_extent:g} m deep"
    yield f"last stage: {trained_stage(state, metadata) or 'none'}"
    recipe, errors = extra.pop("recipe", {}), extra.pop("errors", {})
    for name, value in {**extra, **errors}.items():
        if isinstance(value, str | int | float):
            yield f"{name}: {value:g}" if isinstance(value, float) else f"{name}: {value}"
    yield f"source: {metadata.source}"
    yield f"licence: {metadata.licence}"
    for name, value in recipe.items():
        yield f"recipe: {name} = {json.dumps(value)}"
