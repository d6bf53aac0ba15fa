"""The joint sets, and mirror pairs and maps derived from the joint names."""

import pytest

from i2l_meshnet.skeletons import COCO, HALPE26, HUMAN36M, MANO, SKELETONS, SMPL, Skeleton


def test_the_sets_have_the_published_sizes_and_roots() -> None:
    assert {name: len(skeleton) for name, skeleton in SKELETONS.items()} == {
        "smpl": 29,
        "anny": 32,
        "human36m": 17,
        "muco": 21,
        "coco": 18,
        "mano": 21,
        "halpe26": 26,
        "toy": 16,
    }
    assert all(skeleton.root == ("Wrist" if name == "mano" else "Pelvis") for name, skeleton in SKELETONS.items())


def test_mapping_there_and_back_is_the_identity_on_shared_joints() -> None:
    pairs = HUMAN36M.remap_to(HALPE26)
    assert len(pairs) == 16  # All but the torso.
    assert {(b, a) for a, b in pairs} == set(HALPE26.remap_to(HUMAN36M))
    assert all(HUMAN36M.joints[a] == HALPE26.joints[b] for a, b in pairs)


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
def test_mirroring_swaps_twins_and_bones_connect_the_joints(skeleton: Skeleton) -> None:
    permutation = skeleton.mirror_permutation
    for i, j in enumerate(permutation):
        assert permutation[j] == i
        if i != j:
            assert {skeleton.joints[i][:2], skeleton.joints[j][:2]} == {"L_", "R_"}
            assert skeleton.joints[i][2:] == skeleton.joints[j][2:]
    reached = {skeleton.root_index}
    for _ in skeleton.joints:
        reached |= {end for bone in skeleton.bone_indices for end in bone if reached & {*bone}}
    # No bone connects COCO's face and arms with its root.
    assert len(reached) == len(skeleton) or skeleton is COCO


def test_unknown_and_repeated_joints_raise_an_error() -> None:
    assert SMPL.index("R_Hand") == 23
    assert MANO.index("Pinky_4") == 20
    with pytest.raises(ValueError, match="Tail"):
        SMPL.index("Tail")
    with pytest.raises(ValueError, match="bad"):
        Skeleton("bad", ("A", "A"), (), "A")
    with pytest.raises(ValueError, match="B, C"):
        Skeleton("bad", ("A",), (("A", "B"),), "C")
    with pytest.raises(ValueError, match="L_Arm"):
        _ = Skeleton("bad", ("L_Arm",), (), "L_Arm").mirror_permutation
