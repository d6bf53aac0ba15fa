"""Results that were saved, read back: the interactive view and conversion to animation files."""
