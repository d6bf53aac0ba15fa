"""The joint sets and what follows from their names."""

import pytest

from i2l_meshnet.skeletons import COCO, HALPE26, HUMAN36M, MANO, SKELETONS, SMPL, Skeleton


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
def test_mirroring_joints_twice_changes_nothing(skeleton: Skeleton) -> None:
    permutation = skeleton.mirror_permutation
    assert [permutation[i] for i in permutation] == list(range(len(skeleton)))
    for i, j in enumerate(permutation):
        if i != j:
            assert {skeleton.joints[i][:2], skeleton.joints[j][:2]} == {"L_", "R_"}
            assert skeleton.joints[i][2:] == skeleton.joints[j][2:]


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS)
def test_bones_connect_all_joints(skeleton: Skeleton) -> None:
    reached = {skeleton.root_index}
    for _ in skeleton.joints:
        for start, end in skeleton.bone_indices:
            if start in reached or end in reached:
                reached |= {start, end}
    alone = {skeleton.joints[i] for i in set(range(len(skeleton))) - reached}
    # COCO's face and arms hang on no bone of its own.
    assert not alone or skeleton is COCO


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


def test_joints_are_found_by_name_and_strangers_refused() -> None:
    assert SMPL.index("R_Hand") == 23
    assert MANO.index("Pinky_4") == 20
    with pytest.raises(ValueError, match="'smpl' has no joint 'Tail'"):
        SMPL.index("Tail")


def test_mapping_there_and_back_is_the_identity_on_shared_joints() -> None:
    pairs = HUMAN36M.remap_to(HALPE26)
    assert len(pairs) == 16  # All but the torso.
    assert {(b, a) for a, b in pairs} == set(HALPE26.remap_to(HUMAN36M))
    assert all(HUMAN36M.joints[a] == HALPE26.joints[b] for a, b in pairs)


def test_faulty_skeletons_are_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        Skeleton("bad", ("A", "A"), (), "A")
    with pytest.raises(ValueError, match="unknown joints: B, C"):
        Skeleton("bad", ("A",), (("A", "B"),), "C")
    with pytest.raises(ValueError, match="no twin of L_Arm"):
        _ = Skeleton("bad", ("L_Arm",), (), "L_Arm").mirror_permutation
