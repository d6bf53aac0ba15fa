"""Synthetic pictures a second: how fast `i2l-lab synthesize pictures` is, and where the time goes.

    python benchmarks/pictures.py --count 128

One process, one thread; seconds of processor time, so that other work on the machine disturbs them little. What a
process does once (reading clothes, places and poses) is timed apart. Needs the extra [lab] and the assets makehuman,
backgrounds and interiors.
"""

import argparse
import cProfile
import pstats
import time
from pathlib import Path

import cv2
import torch

from i2l_lab.synthetic.generate import make_picture_maker
from i2l_lab.synthetic.pictures import BLOCK


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=128, help="pictures to time")
    parser.add_argument("--mocap", type=Path, nargs="*", default=[], help="folders of motion capture (BVH)")
    parser.add_argument(
        "--profile", type=int, default=0, metavar="N", help="also show the N functions that take longest"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    start = time.process_time()
    maker = make_picture_maker(False, tuple(options.mocap), seed=1)
    for index in range(BLOCK):  # compiles what is compiled
        maker.make(0, index)
    ready = time.process_time()
    for index in range(options.count):
        maker.make(1, index)
    each = (time.process_time() - ready) / options.count
    print(f"start {ready - start:.1f} s, then {1000 * each:.1f} ms a picture: {1 / each:.1f} a second and core")
    if options.profile:
        profile = cProfile.Profile(time.process_time)
        profile.runcall(lambda: [maker.make(2, index) for index in range(options.count)])
        pstats.Stats(profile).sort_stats("tottime").print_stats(options.profile)


if __name__ == "__main__":
    main()
