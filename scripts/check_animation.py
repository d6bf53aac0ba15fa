"""Open our GLB, USD and BVH files in Blender and compare them with our own meshes and bones.

    python scripts/check_animation.py write output/animation          # in an environment with i2l-meshnet
    python scripts/check_animation.py blender output/animation        # in an environment with Blender: pip install bpy

The first command writes a clip of 60 random smooth poses for each body (SMPL and MANO if I2L_MESHNET_BODIES names their
files). It prints the errors of a reader with four bone influences and of the full mesh. The second command prints the
distances over all frames in millimetres.
"""

import sys
from pathlib import Path

import numpy as np

TICKS_A_SECOND = 1000
"""Rate of the time codes in our USD files."""


def write(folder: Path) -> None:
    """Write the files of each body, and the vertices and bones that Blender should read, in glTF's frame."""
    sys.path.append(str(Path(__file__).parents[1] / "tests" / "animation"))
    import torch
    from clips import dance

    from i2l_meshnet.animation import write_bvh, write_glb, write_usd
    from i2l_meshnet.animation.gltf import CAMERA_TO_GLTF
    from i2l_meshnet.animation.motion import RigClip
    from i2l_meshnet.bodies import load_body
    from i2l_meshnet.bodies.skinning import KinematicTree, blend
    from i2l_meshnet.errors import FileError

    folder.mkdir(parents=True, exist_ok=True)
    for name in ("anny", "anny-hand", "toy", "smpl", "mano"):
        try:
            body = load_body(name)
        except FileError as error:
            print(f"skipped {name}: {error}")
            continue
        params, times = dance(body)
        write_glb(folder / f"{name}.glb", body, params, times)
        write_bvh(folder / f"{name}.bvh", body, params, times)
        write_usd(folder / f"{name}.usdc", body, params, times)
        motion = RigClip(body, params, times).motion()
        turned, places = KinematicTree(motion.rig.parents).pose(motion.rotations, motion.rig.offsets, motion.positions)
        vertices = body(params).vertices.double() * torch.from_numpy(CAMERA_TO_GLTF)
        np.savez(folder / f"{name}.npz", vertices=vertices, times=times, bones=motion.rig.bones, places=places)
        if name != "anny":
            continue

        def skinned(rig, weights, turned=turned, places=places):
            linear = turned @ rig.bone_rotations
            return blend(rig.vertices, weights, linear, places - (linear * rig.heads[:, None]).sum(-1))

        largest = motion.rig.weights.topk(4, -1)
        four = torch.zeros_like(motion.rig.weights).scatter(-1, largest.indices, largest.values)
        _report("four bone influences", skinned(motion.rig, four / four.sum(-1, keepdim=True)) - vertices)
        rig = RigClip(body, params, times, full=True).rig
        _report("full mesh", skinned(rig, rig.weights) - body.full_mesh(vertices.float()))


def _report(what: str, difference) -> None:
    error = 1e3 * difference.norm(dim=-1).numpy()
    print(f"{what}: mean {error.mean():.2f}, 99 % below {np.quantile(error, 0.99):.1f}, maximum {error.max():.1f} mm")


def blender(folder: Path) -> None:
    """Compare what Blender reads with the expected vertices and bones."""
    import bpy

    def to_gltf(points: np.ndarray) -> np.ndarray:
        return points[:, [0, 2, 1]] * (1, 1, -1)

    for truth in sorted(folder.glob("*.npz")):
        with np.load(truth) as arrays:
            vertices, times, bones, places = (arrays[key] for key in ("vertices", "times", "bones", "places"))
        for ending in (".glb", ".usdc"):
            bpy.ops.wm.read_factory_settings(use_empty=True)
            read = bpy.ops.import_scene.gltf if ending == ".glb" else bpy.ops.wm.usd_import
            read(filepath=str(truth.with_suffix(ending)))
            scene = bpy.context.scene
            # Blender counts frames at its own rate for glTF, and time codes for USD.
            rate = scene.render.fps / scene.render.fps_base if ending == ".glb" else TICKS_A_SECOND
            objects = [o for o in bpy.data.objects if o.type == "MESH"]
            mesh = next(o for o in objects if any(m.type == "ARMATURE" for m in o.modifiers))
            off = []
            for time, expected in zip(times, vertices, strict=True):
                frame = time * rate
                scene.frame_set(int(frame), subframe=float(frame % 1))
                posed = mesh.evaluated_get(bpy.context.evaluated_depsgraph_get())
                points = np.array([posed.matrix_world @ vertex.co for vertex in posed.to_mesh().vertices])
                off.append(np.linalg.norm(to_gltf(points) - expected, axis=1))
            print(f"RESULT {truth.stem}{ending}: mean {1e3 * np.mean(off):.4f}, largest {1e3 * np.max(off):.4f} mm")
        bpy.ops.wm.read_factory_settings(use_empty=True)
        bpy.ops.import_anim.bvh(filepath=str(truth.with_suffix(".bvh")))
        armature = next(o for o in bpy.data.objects if o.type == "ARMATURE")
        off = []
        for number, expected in enumerate(places, 1):
            bpy.context.scene.frame_set(number)
            heads = np.array([armature.matrix_world @ armature.pose.bones[str(bone)].head for bone in bones])
            off.append(np.linalg.norm(to_gltf(heads) - expected, axis=1))
        print(f"RESULT {truth.stem}.bvh: mean {1e3 * np.mean(off):.4f}, largest {1e3 * np.max(off):.4f} mm")


if __name__ == "__main__":
    {"write": write, "blender": blender}[sys.argv[1]](Path(sys.argv[2]))
