"""Programs of torch.export from strangers: PyTorch's own reader runs what is in them, ours refuses it."""

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from i2l_meshnet.untrusted import load_program

Members = dict[str, bytes]


class Touches:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of one layer that takes any number of rows."""
    path = tmp_path_factory.mktemp("exported") / "net.pt2"
    shapes = ({0: torch.export.Dim("rows", min=1, max=64)},)
    torch.export.save(torch.export.export(nn.Linear(3, 2), (torch.ones(4, 3),), dynamic_shapes=shapes), path)
    return path


def named(members: Members, ending: str) -> str:
    return next(name for name in members if name.endswith(ending))


def sample_inputs(members: Members, mark: Path) -> None:
    pickled = io.BytesIO()
    torch.save(Touches(mark), pickled)
    members[named(members, ".pt")] = pickled.getvalue()


def pickled_weights(members: Members, mark: Path) -> None:
    name = named(members, "weights_config.json")
    config = json.loads(members[name])
    entry = next(iter(config["config"].values()))
    pickled = io.BytesIO()
    torch.save(Touches(mark), pickled)
    entry["use_pickle"] = True
    members[name.rpartition("/")[0] + "/" + entry["path_name"]] = pickled.getvalue()
    members[name] = json.dumps(config).encode()


def edited(members: Members, change: Callable[[Any, str], bool]) -> None:
    """Applies `change` to the nodes of the program's JSON until it says that it has found its place."""
    name = named(members, "models/model.json")
    content = json.loads(members[name])

    def walk(value: Any) -> bool:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return any(change(value, key) or walk(item) for key, item in list(items))

    assert walk(content)
    members[name] = json.dumps(content).encode()


def replaced(key: str, text: str) -> Callable[[Members, Path], None]:
    def attack(members: Members, mark: Path) -> None:
        def change(node: Any, found: str) -> bool:
            right = isinstance(node, dict) and found == key and isinstance(node[found], str) and node[found]
            if right:
                node[found] = text.replace("MARK", str(mark))
            return bool(right)

        edited(members, change)

    return attack


def guards(members: Members, mark: Path) -> None:
    name = named(members, "models/model.json")
    content = json.loads(members[name])
    content["guards_code"] = [f"__import__('os').system('touch {mark}') or True"]
    members[name] = json.dumps(content).encode()


def elsewhere(members: Members, mark: Path) -> None:
    name = named(members, "weights_config.json")
    config = json.loads(members[name])
    next(iter(config["config"].values()))["path_name"] = "../../../../etc/passwd"
    members[name] = json.dumps(config).encode()


ATTACKS = {
    "sample inputs": sample_inputs,
    "pickled weights": pickled_weights,
    "an expression": replaced("expr_str", "__import__('os').system('touch MARK')"),
    "guards": guards,
    "another function": replaced("target", "torch.hub.load"),
    "an operation that reads files": replaced("target", "torch.ops.aten.from_file.default"),
    "a name that is code": replaced("name", "x=__import__('os').system('touch MARK')#"),
    "a file elsewhere": elsewhere,
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_would_run_is_refused(program: Path, tmp_path: Path, attack: str) -> None:
    mark, path = tmp_path / "ran", tmp_path / "net.pt2"
    with zipfile.ZipFile(program) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    ATTACKS[attack](members, mark)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        load_program(path, {}).module()
    assert not mark.exists()


def test_a_network_is_read(program: Path) -> None:
    rows = torch.ones(7, 3)
    first, second = (load_program(program, {}).module()(rows) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (7, 2)
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_members_that_are_there_twice_are_refused(program: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    path.write_bytes(program.read_bytes())
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(next(name for name in archive.namelist() if name.endswith(".json")), "{}")
    with pytest.raises(ValueError, match="twice"):
        load_program(path, {})
