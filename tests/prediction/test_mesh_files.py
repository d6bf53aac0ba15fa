from pathlib import Path

import numpy as np
import pytest
import trimesh

from i2l_meshnet.animation.gltf import CAMERA_TO_GLTF
from i2l_meshnet.bodies.base import Body
from i2l_meshnet.errors import FileError, InputError
from i2l_meshnet.prediction.mesh_files import Surface, write_scene, write_surface


@pytest.fixture(scope="module")
def full(anny: Body) -> Surface:
    vertices = anny.full_mesh(anny(anny.rest_params()).vertices).double().numpy()
    return Surface(vertices, anny.full_faces.numpy(), anny.full_uv.double().numpy(), anny.full_face_uv.numpy())


@pytest.fixture(scope="module")
def coarse(anny: Body) -> Surface:
    return Surface(anny(anny.rest_params()).vertices.double().numpy(), anny.faces.numpy())


def loaded(path: Path) -> trimesh.Trimesh:
    mesh = trimesh.load(path, process=False)
    if isinstance(mesh, trimesh.Scene):
        (mesh,) = mesh.geometry.values()
    assert isinstance(mesh, trimesh.Trimesh)
    return mesh


@pytest.mark.parametrize("ending", ["obj", "ply", "glb"])
@pytest.mark.parametrize("kind", ["full", "coarse"])
def test_written_meshes_are_read_back(tmp_path: Path, ending: str, kind: str, request: pytest.FixtureRequest) -> None:
    surface: Surface = request.getfixturevalue(kind)
    path = tmp_path / f"mesh.{ending}"
    write_surface(surface, path)
    mesh = loaded(path)
    sign = CAMERA_TO_GLTF if ending == "glb" else np.ones(3)
    np.testing.assert_allclose(mesh.triangles, (surface.vertices * sign)[surface.faces], atol=1e-5)
    merged = trimesh.Trimesh(mesh.vertices, mesh.faces, process=True, validate=True)
    merged.merge_vertices(merge_tex=True, merge_norm=True)
    assert merged.is_watertight
    assert merged.volume == pytest.approx(trimesh.Trimesh(surface.vertices, surface.faces).volume, rel=1e-3)
    assert 0.05 < merged.volume < 0.1  # positive: faces point outwards
    if surface.uv is not None and ending != "ply":
        uv = np.asarray(mesh.visual.uv)[mesh.faces]
        np.testing.assert_allclose(uv, surface.uv[surface.face_uv], atol=1e-5)
    if ending == "obj":
        assert "metres" in path.read_text().splitlines()[0]


def test_files_that_cannot_be_written(tmp_path: Path, coarse: Surface) -> None:
    with pytest.raises(InputError):
        write_surface(coarse, tmp_path / "mesh.stl")
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileError):
        write_surface(coarse, tmp_path / "file" / "mesh.obj")


def test_a_scene_holds_all_meshes_in_their_colours(tmp_path: Path, coarse: Surface, full: Surface) -> None:
    write_scene([coarse, full], [(90, 120, 230), (200, 100, 50)], tmp_path / "scene.glb")
    scene = trimesh.load(tmp_path / "scene.glb", process=False)
    assert isinstance(scene, trimesh.Scene)
    first, second = scene.geometry.values()
    np.testing.assert_allclose(first.triangles, (coarse.vertices * CAMERA_TO_GLTF)[coarse.faces], atol=1e-5)
    np.testing.assert_allclose(second.triangles, (full.vertices * CAMERA_TO_GLTF)[full.faces], atol=1e-5)
    np.testing.assert_allclose(first.vertex_normals, coarse.normals * CAMERA_TO_GLTF, atol=1e-3)
    colors = [mesh.visual.material.baseColorFactor[:3] / 255 for mesh in (first, second)]
    np.testing.assert_allclose(np.array(colors) ** (1 / 2.2) * 255, [(90, 120, 230), (200, 100, 50)], atol=4)
