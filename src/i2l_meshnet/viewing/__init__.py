"""Saved results: the interactive view and the conversion to animation files."""
