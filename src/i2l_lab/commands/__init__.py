"""The commands of `i2l-lab`."""
