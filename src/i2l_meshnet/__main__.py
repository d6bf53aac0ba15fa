"""`python -m i2l_meshnet`: the same as the command `i2l-meshnet`."""

import sys

from i2l_meshnet.cli import main

sys.exit(main())
