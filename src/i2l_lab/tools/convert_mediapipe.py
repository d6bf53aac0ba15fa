"""Convert MediaPipe's hand networks.

    python -m i2l_lab.tools.convert_mediapipe landmarks.safetensors palm.safetensors

Downloads the asset `mediapipe`. Needs the package `tflite`, which reads the exported graphs. tests/models/
test_mediapipe.py compares the networks with MediaPipe's own runtime.
"""

import argparse
from pathlib import Path

import numpy as np
import tflite
import torch
from safetensors.torch import save_file
from torch import nn

from i2l_meshnet import assets
from i2l_meshnet.models.mediapipe import LandmarkNet, PalmNet

WEIGHTED = {"CONV_2D": nn.Conv2d, "DEPTHWISE_CONV_2D": nn.Conv2d, "FULLY_CONNECTED": nn.Linear, "PRELU": nn.PReLU}


class Graph:
    """The operators of a .tflite file and its constant tensors, in float32."""

    def __init__(self, path: Path) -> None:
        self.model = tflite.Model.GetRootAsModel(path.read_bytes(), 0)
        self.graph = self.model.Subgraphs(0)
        names = {value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)}
        self.operators: list[tuple[str, list[int]]] = []
        source: dict[int, int] = {}
        for i in range(self.graph.OperatorsLength()):
            operator = self.graph.Operators(i)
            code = self.model.OperatorCodes(operator.OpcodeIndex())
            name = names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
            inputs = operator.InputsAsNumpy().tolist()
            if name == "DEQUANTIZE":  # weights are stored in 16 bits
                source[operator.Outputs(0)] = inputs[0]
            else:
                self.operators.append((name, inputs))
        self.source = source

    def constant(self, index: int) -> np.ndarray:
        tensor = self.graph.Tensors(self.source.get(index, index))
        dtype = {tflite.TensorType.FLOAT32: np.float32, tflite.TensorType.FLOAT16: np.float16}[tensor.Type()]
        data = self.model.Buffers(tensor.Buffer()).DataAsNumpy()
        return np.frombuffer(data.tobytes(), dtype).reshape(tensor.ShapeAsNumpy()).astype(np.float32)

    def layers(self) -> list[tuple[str, list[np.ndarray]]]:
        """Operators with weights, in order of execution, and their constants."""
        return [
            (name, [self.constant(index) for index in inputs[1:]])
            for name, inputs in self.operators
            if name in WEIGHTED
        ]


def state_dict(network: nn.Module, graph: Graph, order: list[str]) -> dict[str, torch.Tensor]:
    """The network's weights. order: its layers in the order of the graph."""
    state: dict[str, torch.Tensor] = {}
    layers = graph.layers()
    assert len(layers) == len(order), f"{len(layers)} layers in the file, {len(order)} in the network"
    for layer, (kind, constants) in zip(order, layers, strict=True):
        assert isinstance(network.get_submodule(layer), WEIGHTED[kind]), f"{layer} is not a {kind}"
        weight = constants[0]
        if kind == "CONV_2D":
            weight = weight.transpose(0, 3, 1, 2)
        elif kind == "DEPTHWISE_CONV_2D":
            weight = weight.transpose(3, 0, 1, 2)
        elif kind == "PRELU":
            weight = weight.reshape(-1)
        state[f"{layer}.weight"] = torch.from_numpy(np.ascontiguousarray(weight))
        if len(constants) > 1:
            state[f"{layer}.bias"] = torch.from_numpy(constants[1])
    return state


def weighted(network: nn.Module, start: str = "") -> list[str]:
    """Names of the layers with weights whose name starts with `start`, in the order of declaration."""
    kinds = tuple(WEIGHTED.values())
    return [name for name, part in network.named_modules() if isinstance(part, kinds) and name.startswith(start)]


def convert_landmarks(graph: Graph) -> LandmarkNet:
    network = LandmarkNet()
    network.load_state_dict(state_dict(network, graph, weighted(network)))
    return network.eval()


def convert_palm(graph: Graph) -> PalmNet:
    network = PalmNet()
    starts = ("stem", "activation", "first", "stages", "laterals.0", "scores.1", "places.1")
    starts += ("laterals.1", "scores.0", "places.0")
    order = [name for start in starts for name in weighted(network, start)]
    network.load_state_dict(state_dict(network, graph, order))
    return network.eval()


LANDMARK_FILE = "hand_landmark/hand_landmark_full.tflite"
PALM_FILE = "palm_detection/palm_detection_full.tflite"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("landmarks", type=Path, help="file to write the landmark network's weights to")
    parser.add_argument("palm", type=Path, help="file to write the palm detector's weights to")
    arguments = parser.parse_args()
    folder = assets.ensure("mediapipe") / "mediapipe" / "modules"
    landmarks, palm = convert_landmarks(Graph(folder / LANDMARK_FILE)), convert_palm(Graph(folder / PALM_FILE))
    source = {"source": "MediaPipe 0.10.21", "licence": "Apache-2.0"}
    for network, path in ((landmarks, arguments.landmarks), (palm, arguments.palm)):
        save_file({key: value.half() for key, value in network.state_dict().items()}, path, metadata=source)
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
