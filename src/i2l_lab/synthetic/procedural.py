"""Procedural poses from ranges of motion: standing, walking, sitting, crouching, reaching, bending, lying."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from i2l_lab.synthetic.figure import SEGMENTS

Draw = dict[str, np.ndarray]
"""Angles in degrees: (n,) of the trunk and head, (n, 2) of the limbs (left, right). `flat` is the probability that a
foot is parallel to the ground."""

SIGNS = np.array([1.0, -1.0])
"""Sign of an outward rotation about z: left, right. Abduction is a rotation about y with the opposite sign."""


def draw_figures(n: int, rng: np.random.Generator) -> Float[np.ndarray, "n 15 3 3"]:
    """Draw stick figures (see `figure.SEGMENTS`) that are not rotated about the vertical axis.

    An activity determines trunk and legs. The arms do not depend on it, except in activities that move the arms too.
    """
    weights = np.array([weight for weight, _ in ACTIVITIES])
    chosen = rng.choice(len(ACTIVITIES), n, p=weights / weights.sum())
    result = np.empty((n, len(SEGMENTS), 3, 3))
    for index, (_, activity) in enumerate(ACTIVITIES):
        rows = np.flatnonzero(chosen == index)
        if len(rows):
            result[rows] = _assemble(activity(len(rows), rng), rng)
    return result


def _base(n: int, rng: np.random.Generator) -> Draw:
    """A standing person, which the activities modify."""
    normal = rng.normal
    return {
        "pitch": normal(0, 4, n),
        "roll": normal(0, 3, n),
        "bend": normal(-1, 9, n),
        "lean": normal(0, 5, n),
        "twist": normal(0, 10, n),
        "nod": normal(6, 12, n),
        "tilt": normal(0, 7, n),
        "look": normal(0, 24, n),
        "hip": normal(4, 8, (n, 2)),
        "abduct": np.clip(normal(5, 6, (n, 2)), -6, 30),
        "turnout": normal(8, 10, (n, 2)),
        "knee": np.abs(normal(0, 9, (n, 2))),
        "flat": np.full((n, 2), 0.85),
        **_arms(n, rng),
    }


def _arms(n: int, rng: np.random.Generator) -> Draw:
    """Arms: hanging, in front of the body, raised sideways, up. In a third of the figures both are alike."""
    kind = rng.choice(4, (n, 2), p=[0.42, 0.3, 0.14, 0.14])
    uniform = rng.uniform
    low, high = np.array([-15, 0, -30, 70]), np.array([30, 100, 70, 170])
    swing = uniform(low[kind], high[kind])
    low, high = np.array([2, 0, 35, 0]), np.array([22, 45, 110, 70])
    spread = uniform(low[kind], high[kind])
    low, high = np.array([0, 15, 0, 0]), np.array([45, 130, 120, 110])
    elbow = uniform(low[kind], high[kind])
    turn = uniform(-60, 30, (n, 2))
    alike = rng.random(n) < 0.35
    for angles in (swing, spread, elbow, turn):
        angles[alike, 1] = angles[alike, 0] + rng.normal(0, 5, int(alike.sum()))
    return {"swing": swing, "spread": spread, "elbow": np.clip(elbow, 0, 145), "turn": turn}


def _stand(n: int, rng: np.random.Generator) -> Draw:
    draw = _base(n, rng)
    # Weight on one leg: the hip drops, and the other knee bends.
    lax = rng.random(n) < 0.4
    side = rng.integers(2, size=n)
    give = rng.uniform(5, 35, n) * lax
    rows = np.arange(n)
    draw["knee"][rows, side] += give
    draw["hip"][rows, side] += give * 0.6
    draw["roll"] += np.where(side == 0, 1, -1) * give * 0.15
    draw["abduct"] += (rng.random((n, 1)) < 0.25) * rng.uniform(0, 20, (n, 1))
    return draw


def _stride(n: int, rng: np.random.Generator, hip: float, knee: float, arm: float) -> Draw:
    """A random phase of a gait cycle with the given amplitudes, degrees."""
    draw = _base(n, rng)
    phase = rng.uniform(0, 2 * np.pi, (n, 1)) + np.array([0, np.pi])
    size = rng.uniform(0.6, 1.25, (n, 1))
    draw["hip"] = size * hip * np.sin(phase) + rng.normal(6, 4, (n, 2))
    # The knee bends while the leg swings forward.
    draw["knee"] = 6 + size * knee * np.clip(np.cos(phase), 0, 1) ** 1.5 + np.abs(rng.normal(0, 5, (n, 2)))
    draw["flat"] = np.full((n, 2), 0.4)
    swinging = rng.random(n) < 0.75
    swing = -size * arm * np.sin(phase) + rng.normal(0, 6, (n, 2))
    draw["swing"][swinging] = swing[swinging]
    draw["spread"][swinging] = rng.uniform(3, 20, (n, 2))[swinging]
    bent = np.clip(rng.normal(arm, 12, (n, 2)), 5, 120)
    draw["elbow"][swinging] = bent[swinging]
    draw["turn"][swinging] = rng.uniform(-30, 10, (n, 2))[swinging]
    return draw


def _walk(n: int, rng: np.random.Generator) -> Draw:
    return _stride(n, rng, hip=24.0, knee=55.0, arm=24.0)


def _run(n: int, rng: np.random.Generator) -> Draw:
    draw = _stride(n, rng, hip=42.0, knee=95.0, arm=45.0)
    draw["bend"] = rng.normal(6, 6, n)
    draw["elbow"] = np.clip(rng.normal(85, 15, (n, 2)), 30, 130)
    return draw


def _sit(n: int, rng: np.random.Generator) -> Draw:
    draw = _base(n, rng)
    draw["pitch"] = rng.normal(-6, 8, n)
    draw["bend"] = rng.uniform(-10, 35, n)
    draw["hip"] = rng.uniform(65, 105, (n, 1)) + rng.normal(0, 6, (n, 2))
    draw["knee"] = rng.uniform(35, 115, (n, 1)) + rng.normal(0, 10, (n, 2))
    draw["abduct"] = rng.uniform(0, 28, (n, 1)) + rng.normal(0, 4, (n, 2))
    # On the floor: each leg is straight or bent.
    floor = rng.random(n) < 0.2
    draw["knee"][floor] = rng.uniform(0, 130, (n, 2))[floor]
    draw["flat"] = np.full((n, 2), 0.7)
    return draw


def _squat(n: int, rng: np.random.Generator) -> Draw:
    draw = _base(n, rng)
    depth = rng.uniform(0.3, 1, n)
    draw["hip"] = (130 * depth)[:, None] + rng.normal(0, 6, (n, 2))
    draw["knee"] = (140 * depth)[:, None] + rng.normal(0, 6, (n, 2))
    draw["pitch"] = 45 * depth + rng.normal(0, 7, n)
    draw["abduct"] = rng.uniform(3, 30, (n, 1)) + rng.normal(0, 3, (n, 2))
    draw["turnout"] = draw["abduct"] + rng.normal(0, 6, (n, 2))
    draw["nod"] = rng.normal(-10, 12, n)
    return draw


def _lunge(n: int, rng: np.random.Generator) -> Draw:
    draw = _base(n, rng)
    side, rows = rng.integers(2, size=n), np.arange(n)
    front = rng.uniform(35, 95, n)
    draw["hip"][rows, side] = front
    draw["knee"][rows, side] = front * rng.uniform(0.7, 1.15, n)
    draw["hip"][rows, 1 - side] = rng.uniform(-30, 10, n)
    draw["knee"][rows, 1 - side] = rng.uniform(5, 95, n)
    draw["flat"][rows, 1 - side] = 0.2
    draw["bend"] = rng.uniform(-5, 30, n)
    return draw


def _kneel(n: int, rng: np.random.Generator) -> Draw:
    draw = _base(n, rng)
    side, rows = rng.integers(2, size=n), np.arange(n)
    both = rng.random(n) < 0.5
    draw["hip"] = rng.uniform(-5, 60, (n, 1)) + rng.normal(0, 4, (n, 2))
    draw["knee"] = np.clip(90 + draw["hip"] + rng.normal(0, 6, (n, 2)), 60, 150)
    draw["hip"][rows, side] = np.where(both, draw["hip"][rows, side], rng.uniform(75, 105, n))
    draw["knee"][rows, side] = np.where(both, draw["knee"][rows, side], rng.uniform(70, 110, n))
    draw["flat"] = np.full((n, 2), 0.1)
    return draw


def _stoop(n: int, rng: np.random.Generator) -> Draw:
    """Bent forward at the hips and back, reaching down or out."""
    draw = _base(n, rng)
    draw["pitch"] = rng.uniform(10, 75, n)
    draw["bend"] = rng.uniform(10, 55, n)
    draw["hip"] = draw["pitch"][:, None] * rng.uniform(0.8, 1.1, (n, 1)) + rng.normal(0, 5, (n, 2))
    draw["knee"] = rng.uniform(0, 45, (n, 1)) + rng.normal(0, 5, (n, 2))
    reaching = rng.random((n, 2)) < 0.6
    draw["swing"] = np.where(reaching, rng.uniform(40, 150, (n, 2)), draw["swing"])
    draw["elbow"] = np.where(reaching, rng.uniform(0, 60, (n, 2)), draw["elbow"])
    draw["nod"] = rng.uniform(-35, 15, n)
    return draw


def _kick(n: int, rng: np.random.Generator) -> Draw:
    """One leg raised: kicking, climbing, balancing, dancing."""
    draw = _base(n, rng)
    side, rows = rng.integers(2, size=n), np.arange(n)
    draw["hip"][rows, side] = rng.uniform(-35, 115, n)
    draw["knee"][rows, side] = rng.uniform(0, 125, n)
    draw["abduct"][rows, side] = rng.uniform(-5, 60, n)
    draw["flat"][rows, side] = 0.0
    draw["lean"] = rng.normal(0, 12, n)
    draw["bend"] = rng.normal(5, 15, n)
    return draw


def _free(n: int, rng: np.random.Generator) -> Draw:
    """Any angles within the joints' ranges: sport, dance, falls."""
    draw = _base(n, rng)
    draw["pitch"] = rng.normal(0, 25, n)
    draw["roll"] = rng.normal(0, 15, n)
    draw["bend"] = rng.uniform(-25, 55, n)
    draw["lean"] = rng.normal(0, 14, n)
    draw["twist"] = rng.normal(0, 20, n)
    draw["hip"] = rng.uniform(-30, 115, (n, 2))
    draw["abduct"] = rng.uniform(-10, 60, (n, 2))
    draw["knee"] = rng.uniform(0, 130, (n, 2))
    draw["flat"] = np.zeros((n, 2))
    draw["swing"] = rng.uniform(-45, 175, (n, 2))
    draw["spread"] = rng.uniform(0, 120, (n, 2))
    return draw


def _lie(n: int, rng: np.random.Generator) -> Draw:
    """Lying on the back, the face or a side, with limbs at any angle."""
    draw = _free(n, rng)
    side = rng.integers(3, size=n)
    draw["pitch"] = np.choose(side, [-90, 90, 0]) + rng.normal(0, 12, n)
    draw["roll"] = np.where(side == 2, rng.choice([-90, 90], n), 0) + rng.normal(0, 12, n)
    return draw


ACTIVITIES: tuple[tuple[float, Callable[[int, np.random.Generator], Draw]], ...] = (
    (0.34, _stand),
    (0.17, _walk),
    (0.06, _run),
    (0.13, _sit),
    (0.05, _squat),
    (0.08, _lunge),
    (0.03, _kneel),
    (0.04, _stoop),
    (0.06, _kick),
    (0.03, _free),
    (0.01, _lie),
)
"""Probabilities of the activities."""


def _about(axis: str, degrees: np.ndarray) -> np.ndarray:
    return Rotation.from_euler(axis, degrees[:, None], degrees=True).as_matrix()


def _assemble(draw: Draw, rng: np.random.Generator) -> Float[np.ndarray, "n 15 3 3"]:
    """Global rotations from angles. Forward is -y: a negative rotation about x swings a hanging limb forward."""
    root = _about("x", draw["pitch"]) @ _about("y", draw["roll"])
    chest = root @ _about("x", draw["bend"]) @ _about("y", draw["lean"]) @ _about("z", draw["twist"])
    head = chest @ _about("x", draw["nod"]) @ _about("y", draw["tilt"]) @ _about("z", draw["look"])
    segments = {"root": root, "chest": chest, "head": head}
    for column, (side, sign) in enumerate(zip("LR", SIGNS, strict=True)):
        hip, knee = np.clip(draw["hip"][:, column], -35, 130), np.clip(draw["knee"][:, column], 0, 150)
        thigh = root @ _about("y", -sign * draw["abduct"][:, column]) @ _about("x", -hip)
        thigh = thigh @ _about("z", sign * draw["turnout"][:, column])
        shin = thigh @ _about("x", knee)
        # With probability `flat`, the foot is parallel to the ground, as far as the ankle's range allows.
        ankle = np.where(
            rng.random(len(hip)) < draw["flat"][:, column], hip - knee - draw["pitch"], rng.normal(12, 14, len(hip))
        )
        foot = shin @ _about("x", np.clip(ankle, -30, 45) + rng.normal(0, 4, len(hip)))
        upper = chest @ _about("y", -sign * draw["spread"][:, column]) @ _about("x", -draw["swing"][:, column])
        upper = upper @ _about("z", sign * draw["turn"][:, column])
        fore = upper @ _about("x", -draw["elbow"][:, column])
        segments |= {
            f"{side}_upper_arm": upper,
            f"{side}_forearm": fore,
            f"{side}_hand": fore,
            f"{side}_thigh": thigh,
            f"{side}_shin": shin,
            f"{side}_foot": foot,
        }
    return np.stack([segments[name] for name in SEGMENTS], 1)
