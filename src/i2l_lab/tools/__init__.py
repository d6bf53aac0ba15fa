"""Programs that are run by hand in a checkout: `python -m i2l_lab.tools.NAME`."""
