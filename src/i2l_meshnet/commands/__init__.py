"""The commands of `i2l-meshnet`, a module for each, so that a command waits for no other's imports."""
