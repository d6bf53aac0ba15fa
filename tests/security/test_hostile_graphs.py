"""Graphs of strangers for ONNX Runtime and OpenVINO that would read other files, run for ever or take all memory."""

import copy
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
from i2l_meshnet.models.memory import InParts

CROPS = torch.rand(2, 3, 32, 32)
RUNTIMES: tuple[Runtime, ...] = ("onnx", "openvino")
each_runtime = pytest.mark.parametrize("runtime", RUNTIMES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network in every format."""
    folder = tmp_path_factory.mktemp("exported")
    readers.exported(folder)
    return folder


def external(place: str) -> Callable[[ModelProto], None]:
    """Weights that are in another file."""

    def change(model: ModelProto) -> None:
        weights = model.graph.initializer[0]
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        for key, value in (("location", place), ("offset", "0"), ("length", "576")):
            entry = weights.external_data.add()
            entry.key, entry.value = key, value

    return change


def added(*nodes: onnx.NodeProto, **constants: np.ndarray) -> Callable[[ModelProto], None]:
    """Operations whose sum, "extra", is added to the first output."""

    def change(model: ModelProto) -> None:
        name = model.graph.output[0].name
        for node in model.graph.node:
            node.output[:] = ["real" if output == name else output for output in node.output]
        model.graph.node.extend([*nodes, helper.make_node("Add", ["real", "extra"], [name])])
        model.graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in constants.items())

    return change


def filled(count: int) -> Callable[[ModelProto], None]:
    """As many ones, and their sum."""
    ones = helper.make_tensor("value", TensorProto.FLOAT, [1], [1.0])
    make = helper.make_node("ConstantOfShape", ["count"], ["giant"], value=ones)
    return added(make, helper.make_node("ReduceSum", ["giant"], ["extra"], keepdims=0), count=np.array([count]))


def repeated() -> Callable[[ModelProto], None]:
    """A step done 4 billion billion times."""
    kinds = {"step": (TensorProto.INT64, []), "go": (TensorProto.BOOL, []), "x": (TensorProto.FLOAT, [])}
    put = [helper.make_tensor_value_info(name, *kind) for name, kind in kinds.items()]
    out = [helper.make_tensor_value_info(f"{name}2", *kinds[name]) for name in ("go", "x")]
    body = helper.make_graph([helper.make_node("Identity", [n], [f"{n}2"]) for n in ("go", "x")], "body", put, out)
    loop = helper.make_node("Loop", ["count", "always", "zero"], ["extra"], body=body)
    return added(loop, count=np.array(2**62), always=np.array(True), zero=np.array(0, np.float32))


def multiplied(model: ModelProto) -> None:
    """Functions of ten calls of the one before: a billion operations."""
    for level in range(9):
        calls = [
            helper.make_node(
                f"f{level - 1}" if level else "Identity", [f"x{k}"], [f"x{k + 1}"], domain="own" * (level > 0)
            )
            for k in range(10)
        ]
        sets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
        model.functions.append(helper.make_function("own", f"f{level}", ["x0"], ["x10"], calls, sets))
    model.opset_import.append(helper.make_opsetid("own", 1))
    added(helper.make_node("f8", ["zero"], ["extra"], domain="own"), zero=np.array(0, np.float32))(model)


def other_type(model: ModelProto) -> None:
    """Numbers of twice the width."""
    output = model.graph.output[0]
    for node in model.graph.node:
        node.output[:] = ["real" if name == output.name else name for name in node.output]
    model.graph.node.append(helper.make_node("Cast", ["real"], [output.name], to=TensorProto.DOUBLE))
    output.type.tensor_type.elem_type = TensorProto.DOUBLE


def fewer(model: ModelProto) -> None:
    del model.graph.output[-1]


def other_order(model: ModelProto) -> None:
    first, second = copy.deepcopy(model.graph.output[0]), copy.deepcopy(model.graph.output[1])
    model.graph.output[0].CopyFrom(second)
    model.graph.output[1].CopyFrom(first)


def infinite(model: ModelProto) -> None:
    bias = next(one for one in model.graph.initializer if one.name.endswith("bias"))
    bias.raw_data = np.full(bias.dims, np.inf, np.float32).tobytes()


def circular(model: ModelProto) -> None:
    """A node that needs its own result, and one that is there twice."""
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]
    model.graph.node.append(copy.deepcopy(model.graph.node[1]))


def other_input(model: ModelProto) -> None:
    model.graph.input[0].name = "picture"
    for node in model.graph.node:
        node.input[:] = ["picture" if name == "image" else name for name in node.input]


ATTACKS: dict[str, tuple[Callable[[ModelProto], None], str]] = {
    "weights of the system": (external("/etc/passwd"), "in another file"),
    "weights outside": (external("../other"), "in another file"),
    "weights beside": (external("other"), "in another file"),
    "a loop": (repeated(), "graphs within its graph"),
    "functions in functions": (multiplied, "functions of its own|operations of 'own'"),
    "operations of another library": (
        added(helper.make_node("PyOp", ["zero"], ["extra"], domain="ai.onnx.contrib"), zero=np.array(0, np.float32)),
        "operations of 'ai.onnx.contrib'",
    ),
    "4 TB": (filled(10**12), r"larger than 1 GB|does not hold the network and one crop"),
    "8 GB": (filled(2 * 10**9), r"larger than 1 GB|does not hold the network and one crop"),
    "other numbers": (other_type, "'joints' is not what its description tells of"),
    "an output less": (fewer, "has 5 outputs, not 6"),
    "other outputs": (other_order, "'joints' is not what its description tells of"),
    "infinities": (infinite, "not finite"),
    "a circle": (circular, "is no"),
    "another input": (other_input, "cannot answer|is no"),
}


def attempt(path: Path, runtime: Runtime) -> None:
    InParts(load_exported(path, None, runtime)[0])(CROPS)


@each_runtime
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.filterwarnings("ignore:the memory of the device")
def test_graphs_that_reach_out_or_never_end_are_refused(
    attack: str, runtime: Runtime, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    change, told = ATTACKS[attack]
    model = onnx.load(folder / "net.onnx")
    change(model)
    path = tmp_path / "net.onnx"
    path.write_bytes(model.SerializeToString())
    (tmp_path / "other").write_bytes(bytes(1000))
    with pytest.raises(UserError, match=told) as caught:
        attempt(path, runtime)
    assert str(caught.value).isprintable()
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""


def test_only_messages_that_matter_are_looked_into(folder: Path) -> None:
    data = (folder / "net.onnx").read_bytes()
    graph_limits.require_plain_onnx(data)
    for place in range(0, len(data), 97):
        with pytest.raises(ValueError, match="no ONNX file"):
            graph_limits.require_plain_onnx(data[:place] + b"\x0b")
    deep = helper.make_attribute("body", helper.make_graph([], "empty", [], []))
    for attribute in (deep, AttributeProto(name="bodies", graphs=[deep.g], type=AttributeProto.GRAPHS)):
        model = onnx.load_from_string(data)
        model.graph.node[0].attribute.append(attribute)
        with pytest.raises(ValueError, match="graphs within"):
            graph_limits.require_plain_onnx(model.SerializeToString())


def repacked(folder: Path, path: Path, change: Callable[[bytes], bytes], method: int = zipfile.ZIP_STORED) -> Path:
    """The OpenVINO archive with another graph."""
    with zipfile.ZipFile(folder / "net.openvino") as archive, zipfile.ZipFile(path, "w", method) as new:
        new.writestr("model.xml", change(archive.read("model.xml")))
        new.writestr("model.bin", archive.read("model.bin"))
    return path


ENTITIES = b'<!DOCTYPE net [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda graph: graph[:5000], "is not a network that OpenVINO can read"),
        (lambda graph: b"solver_parameter", "its graph is no XML"),
        (lambda graph: graph.replace(b"<net", ENTITIES + b"<net", 1), "its graph is no XML"),
        (lambda graph: graph.replace(b'size="', b'size="9'), "is not a network that OpenVINO can read"),
        (
            lambda graph: graph.replace(b'offset="0"', b'offset="99999999999"'),
            "is not a network that OpenVINO can read",
        ),
        (lambda graph: graph.replace(b'type="MatMul"', b'type="Own" version="evil"', 1), "is not a network"),
    ],
)
def test_broken_graphs_of_openvino_are_refused(
    folder: Path, tmp_path: Path, change: Callable[[bytes], bytes], told: str
) -> None:
    with pytest.raises(FileError, match=told):
        attempt(repacked(folder, tmp_path / "net.openvino", change), "openvino")


def test_archives_that_unfold_and_weights_that_are_too_few_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="compressed"):
        load_ready(repacked(folder, tmp_path / "net.openvino", bytes, zipfile.ZIP_DEFLATED))
    (tmp_path / "net.xml").write_bytes((folder / "model.xml").read_bytes())
    for weights in (b"", (folder / "model.bin").read_bytes()[:-8]):
        (tmp_path / "net.bin").write_bytes(weights)
        with pytest.raises(FileError, match="is not a network that OpenVINO can read"):
            load_ready(tmp_path / "net.xml")
    (tmp_path / "net.bin").unlink()
    with pytest.raises(FileError, match=r"net\.bin"):
        load_ready(tmp_path / "net.xml")


@each_runtime
def test_descriptions_of_other_outputs_are_refused(folder: Path, tmp_path: Path, runtime: Runtime) -> None:
    model = onnx.load(folder / "net.onnx")
    said = json.loads(model.metadata_props[0].value)
    for outputs in (["joints", "vertices", "mesh_joints", "own"], [["joints"]], 7):
        model.metadata_props[0].value = json.dumps({**said, "outputs": outputs})
        onnx.save(model, tmp_path / "net.onnx")
        with pytest.raises(FileError, match="is not a network that"):
            load_exported(tmp_path / "net.onnx", None, runtime)
    model.metadata_props[0].value = "[" * 100_000
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(FileError, match="is not a network that"):
        load_exported(tmp_path / "net.onnx", None, runtime)
