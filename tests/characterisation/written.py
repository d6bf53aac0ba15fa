"""Read result files as plain values and arrays."""

import csv
import json
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as parquet
import trimesh

SIDE = 32
"""Golden files have the means of this many cells of an image in each direction."""
WORDED = ("units", "versions", "licence")
"""Keys of texts for people and of versions: only their presence is compared."""
_KINDS = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


def folder(path: Path) -> dict[str, Any]:
    """All files of a folder by name."""
    return {file.name: READERS[file.suffix](file) for file in sorted(path.iterdir()) if file.suffix in READERS}


def read_json(path: Path) -> Any:
    return plain(json.loads(path.read_text(encoding="utf-8")))


def plain(value: Any) -> Any:
    """JSON content with long lists of numbers as arrays and without texts for people."""
    if isinstance(value, dict):
        return {key: "" if key in WORDED else plain(item) for key, item in value.items()}
    if isinstance(value, list):
        try:
            array = np.array(value)
        except ValueError:
            return [plain(item) for item in value]
        long = array.dtype.kind in "f" and array.size > 12
        return array if long or (array.dtype.kind == "U" and array.ndim == 1) else [plain(item) for item in value]
    return value


def read_npz(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: "" if name in WORDED else arrays[name] for name in arrays}


def read_mesh(path: Path) -> dict[str, Any]:
    """An .obj or .ply."""
    mesh = trimesh.load(path, process=False, maintain_order=True)
    assert isinstance(mesh, trimesh.Trimesh)
    normals = path.suffix == ".obj" or b"property float nx" in path.read_bytes()[:1000]
    found = {"vertices": np.asarray(mesh.vertices), "faces": np.asarray(mesh.faces)}
    return {**found, "normals": np.asarray(mesh.vertex_normals)} if normals else found


def read_glb(path: Path) -> dict[str, Any]:
    """Meshes, skins, nodes and animations, with the values of every accessor."""
    data = path.read_bytes()
    length = struct.unpack_from("<I", data, 12)[0]
    gltf, blob = json.loads(data[20 : 20 + length]), data[28 + length :]

    def values(number: int) -> np.ndarray:
        accessor = gltf["accessors"][number]
        view = gltf["bufferViews"][accessor["bufferView"]]
        width, kind = _WIDTHS[accessor["type"]], np.dtype(_KINDS[accessor["componentType"]])
        start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        return np.frombuffer(blob, kind, accessor["count"] * width, start).reshape(accessor["count"], width)

    meshes = [
        {
            "faces": values(part["indices"]),
            "targets": [values(target["POSITION"]) for target in part.get("targets", [])],
            **{name: values(number) for name, number in part["attributes"].items()},
        }
        for mesh in gltf["meshes"]
        for part in mesh["primitives"]
    ]
    return {
        "meshes": meshes,
        "nodes": np.array([node.get("name", "") for node in gltf["nodes"]]),
        "rotations": np.array([node.get("rotation", [0.0, 0, 0, 1]) for node in gltf["nodes"]]),
        "translations": np.array([node.get("translation", [0.0, 0, 0]) for node in gltf["nodes"]]),
        "skins": [
            {"joints": skin["joints"], "binds": values(skin["inverseBindMatrices"])} for skin in gltf.get("skins", [])
        ],
        "animations": [
            {
                "targets": [f"{one['target']['node']} {one['target']['path']}" for one in animation["channels"]],
                "times": values(animation["samplers"][0]["input"]),
                "values": np.concatenate([values(one["output"]).reshape(-1) for one in animation["samplers"]]),
            }
            for animation in gltf.get("animations", [])
        ],
    }


def read_bvh(path: Path) -> dict[str, Any]:
    lines = [line.strip() for line in path.read_text().splitlines()]
    start = lines.index("MOTION")
    return {
        "joints": np.array([line.split()[1] for line in lines[:start] if line.split()[0] in ("ROOT", "JOINT")]),
        "channels": sorted({line for line in lines[:start] if line.startswith("CHANNELS")}),
        "offsets": np.array([line.split()[1:] for line in lines[:start] if line.startswith("OFFSET")], float),
        "frames": int(lines[start + 1].split()[-1]),
        "seconds": float(lines[start + 2].split()[-1]),
        "motion": np.array([line.split() for line in lines[start + 3 :] if line], float),
    }


def means(picture: np.ndarray) -> dict[str, Any]:
    cells = cv2.resize(picture.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return {"shape": list(picture.shape), "means": cells}


def read_picture(path: Path) -> dict[str, Any]:
    picture = cv2.imread(str(path))
    assert picture is not None
    return means(picture)


def read_film(path: Path) -> dict[str, Any]:
    """The middle frame and the number of frames."""
    film, frames = cv2.VideoCapture(str(path)), list[np.ndarray]()
    while (found := film.read())[0]:
        frames.append(found[1])
    return {"frames": len(frames), **means(frames[len(frames) // 2])}


def read_csv(path: Path) -> list[dict[str, Any]]:
    def value(text: str) -> Any:
        try:
            return float(text)
        except ValueError:
            return text

    with path.open(newline="", encoding="utf-8") as file:
        return [{key: value(text) for key, text in row.items()} for row in csv.DictReader(file)]


def read_parquet(path: Path) -> dict[str, Any]:
    table = parquet.read_table(path)
    facts = json.loads((table.schema.metadata or {})[b"i2l-meshnet"])
    types = {field.name: str(field.type) for field in table.schema}
    return {"types": types, "facts": plain(facts), "rows": [plain(row) for row in table.to_pylist()]}


READERS = {
    ".json": read_json,
    ".npz": read_npz,
    ".obj": read_mesh,
    ".ply": read_mesh,
    ".glb": read_glb,
    ".bvh": read_bvh,
    ".jpg": read_picture,
    ".png": read_picture,
    ".mp4": read_film,
    ".csv": read_csv,
    ".parquet": read_parquet,
}
