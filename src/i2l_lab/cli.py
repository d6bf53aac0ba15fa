"""The `i2l-lab` command."""

from collections.abc import Sequence

from i2l_meshnet.cli import CommandLine

LAB = CommandLine(
    "i2l-lab",
    "How the default models of i2l-meshnet were made.",
    commands={
        "lift": "i2l_lab.commands.lift:lift",
        "lift-hand": "i2l_lab.commands.lift:lift_hand",
        "synthesize": "i2l_lab.commands.synthesize:synthesize",
    },
    examples={
        "lift": ("i2l-lab lift --bank bank --out lifting --mocap MOCAP",),
        "lift-hand": ("i2l-lab lift-hand --out hands --workers 2",),
        "synthesize": ("i2l-lab synthesize pictures --out pictures --count 1024",),
        "synthesize pictures": ("i2l-lab synthesize pictures --out pictures --count 1024 --workers 2",),
        "synthesize detections": ("i2l-lab synthesize detections --pictures pictures --out bank",),
        "synthesize keypoints": ("i2l-lab synthesize keypoints --bank bank --out anny_halpe26_rendered.npz",),
        "completion": ("i2l-lab completion bash > ~/.local/share/bash-completion/completions/i2l-lab",),
    },
    removed={},
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command of `i2l-lab` and return its exit code."""
    return LAB.main(arguments)
