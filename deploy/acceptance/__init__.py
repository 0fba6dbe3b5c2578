"""Acceptance of a GPU host: the served model there beside the model in float32, on phantoms that came with it."""
