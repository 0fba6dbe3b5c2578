"""System B: CLIP's transformer with adapters, blocks within each view, then blocks across the four views of an exam."""
