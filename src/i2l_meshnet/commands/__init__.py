"""The commands of `i2l-meshnet` that do not take exactly one options dataclass."""
