"""Untrusted graphs for ONNX Runtime and OpenVINO that would read other files, never end or exhaust the memory."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import readers
import torch
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

from i2l_meshnet.errors import FileError, UserError
from i2l_meshnet.models import graph_limits
from i2l_meshnet.models.exported import Runtime, load_exported, load_ready
from i2l_meshnet.models.memory import SplitBatches

CROPS = torch.rand(2, 3, 32, 32)
RUNTIMES: tuple[Runtime, ...] = ("onnx", "openvino")
each_runtime = pytest.mark.parametrize("runtime", RUNTIMES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network in every format."""
    folder = tmp_path_factory.mktemp("exported")
    readers.exported(folder)
    return folder


def external(model: ModelProto) -> None:
    """Weights in another file."""
    weights = model.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "other"), ("offset", "0"), ("length", "576")):
        entry = weights.external_data.add()
        entry.key, entry.value = key, value


def added(*nodes: onnx.NodeProto, **constants: object) -> Callable[[ModelProto], None]:
    """Operations whose result, "extra", is added to the first output."""

    def change(model: ModelProto) -> None:
        name = model.graph.output[0].name
        for node in model.graph.node:
            node.output[:] = ["real" if output == name else output for output in node.output]
        model.graph.node.extend([*nodes, helper.make_node("Add", ["real", "extra"], [name])])
        model.graph.initializer.extend(
            numpy_helper.from_array(np.array(value), key) for key, value in constants.items()
        )

    return change


def large(count: int) -> Callable[[ModelProto], None]:
    """The sum of `count` ones."""
    ones = helper.make_tensor("value", TensorProto.FLOAT, [1], [1.0])
    make = helper.make_node("ConstantOfShape", ["count"], ["large"], value=ones)
    return added(make, helper.make_node("ReduceSum", ["large"], ["extra"], keepdims=0), count=[count])


def loop() -> Callable[[ModelProto], None]:
    """A loop of 2**62 steps."""
    kinds = {"step": (TensorProto.INT64, []), "go": (TensorProto.BOOL, []), "x": (TensorProto.FLOAT, [])}
    given = [helper.make_tensor_value_info(name, *kind) for name, kind in kinds.items()]
    out = [helper.make_tensor_value_info(f"{name}2", *kinds[name]) for name in ("go", "x")]
    body = helper.make_graph([helper.make_node("Identity", [n], [f"{n}2"]) for n in ("go", "x")], "body", given, out)
    node = helper.make_node("Loop", ["count", "always", "zero"], ["extra"], body=body)
    return added(node, count=2**62, always=True, zero=np.float32(0))


def nested_functions(model: ModelProto) -> None:
    """Functions that each call the previous one ten times: a billion operations."""
    for level in range(9):
        name, domain = (f"f{level - 1}", "own") if level else ("Identity", "")
        calls = [helper.make_node(name, [f"x{k}"], [f"x{k + 1}"], domain=domain) for k in range(10)]
        sets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
        model.functions.append(helper.make_function("own", f"f{level}", ["x0"], ["x10"], calls, sets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    added(helper.make_node("f8", ["zero"], ["extra"], domain="own"), zero=np.float32(0))(model)


def other_type(model: ModelProto) -> None:
    """An output in double precision."""
    output = model.graph.output[0]
    for node in model.graph.node:
        node.output[:] = ["real" if name == output.name else name for name in node.output]
    model.graph.node.append(helper.make_node("Cast", ["real"], [output.name], to=TensorProto.DOUBLE))
    output.type.tensor_type.elem_type = TensorProto.DOUBLE


def infinite(model: ModelProto) -> None:
    bias = next(weights for weights in model.graph.initializer if weights.name.endswith("bias"))
    bias.raw_data = np.full(bias.dims, np.inf, np.float32).tobytes()


def circular(model: ModelProto) -> None:
    """A node that needs its own result."""
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]


def fewer_outputs(model: ModelProto) -> None:
    del model.graph.output[-1]


def other_input(model: ModelProto) -> None:
    model.graph.input[0].name = "picture"
    for node in model.graph.node:
        node.input[:] = ["picture" if name == "image" else name for name in node.input]


FOREIGN = helper.make_node("PyOp", ["zero"], ["extra"], domain="ai.onnx.contrib")
ATTACKS: dict[str, Callable[[ModelProto], None]] = {
    "weights in another file": external,
    "a loop": loop(),
    "functions in functions": nested_functions,
    "operations of another library": added(FOREIGN, zero=np.float32(0)),
    "4 TB": large(10**12),
    "8 GB": large(2 * 10**9),
    "another type": other_type,
    "an output less": fewer_outputs,
    "infinite weights": infinite,
    "a circle": circular,
    "another input": other_input,
}


def attempt(path: Path, runtime: Runtime) -> None:
    SplitBatches(load_exported(path, None, runtime)[0])(CROPS)


@each_runtime
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.filterwarnings("ignore:a batch of")
def test_dangerous_graphs_are_refused(
    attack: str, runtime: Runtime, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = onnx.load(folder / "net.onnx")
    ATTACKS[attack](model)
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    (tmp_path / "other").write_bytes(bytes(1000))
    with pytest.raises(UserError) as caught:
        attempt(path, runtime)
    assert str(caught.value).isprintable()
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


def test_graphs_within_attributes_are_found(folder: Path) -> None:
    data = (folder / "net.onnx").read_bytes()
    graph_limits.require_plain_onnx(data)
    with pytest.raises(ValueError, match="ONNX"):
        graph_limits.require_plain_onnx(data[:97] + b"\x0b")
    deep = helper.make_attribute("body", helper.make_graph([], "empty", [], []))
    for attribute in (deep, AttributeProto(name="bodies", graphs=[deep.g], type=AttributeProto.GRAPHS)):
        model = onnx.load_from_string(data)
        model.graph.node[0].attribute.append(attribute)
        with pytest.raises(ValueError, match="graphs in its graph"):
            graph_limits.require_plain_onnx(model.SerializeToString())


def repacked(folder: Path, path: Path, change: Callable[[bytes], bytes], method: int = zipfile.ZIP_STORED) -> Path:
    """The OpenVINO archive with another graph."""
    with zipfile.ZipFile(folder / "net.openvino") as archive, zipfile.ZipFile(path, "w", method) as new:
        new.writestr("model.xml", change(archive.read("model.xml")))
        new.writestr("model.bin", archive.read("model.bin"))
    return path


ENTITIES = b'<!DOCTYPE net [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    "change",
    [
        lambda graph: graph[:5000],
        lambda graph: b"solver_parameter",
        lambda graph: graph.replace(b"<net", ENTITIES + b"<net", 1),
        lambda graph: graph.replace(b'size="', b'size="9'),
        lambda graph: graph.replace(b'offset="0"', b'offset="99999999999"'),
        lambda graph: graph.replace(b'type="MatMul"', b'type="Own" version="evil"', 1),
    ],
)
def test_damaged_openvino_graphs_are_refused(folder: Path, tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(FileError):
        attempt(repacked(folder, tmp_path / "net.openvino", change), "openvino")


def test_compressed_archives_and_missing_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError):
        load_ready(repacked(folder, tmp_path / "net.openvino", bytes, zipfile.ZIP_DEFLATED))
    (tmp_path / "net.xml").write_bytes((folder / "model.xml").read_bytes())
    for weights in (b"", (folder / "model.bin").read_bytes()[:-8]):
        (tmp_path / "net.bin").write_bytes(weights)
        with pytest.raises(FileError):
            load_ready(tmp_path / "net.xml")
    (tmp_path / "net.bin").unlink()
    with pytest.raises(FileError, match=r"net\.bin"):
        load_ready(tmp_path / "net.xml")


@each_runtime
def test_wrong_descriptions_are_refused(folder: Path, tmp_path: Path, runtime: Runtime) -> None:
    model = onnx.load(folder / "net.onnx")
    description = json.loads(model.metadata_props[0].value)
    wrong = (["joints", "vertices", "mesh_joints", "own"], [["joints"]], 7)
    for text in (*(json.dumps({**description, "outputs": outputs}) for outputs in wrong), "[" * 100_000):
        model.metadata_props[0].value = text
        onnx.save(model, tmp_path / "net.onnx")
        with pytest.raises(FileError):
            load_exported(tmp_path / "net.onnx", None, runtime)
