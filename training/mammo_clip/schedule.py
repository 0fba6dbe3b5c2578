"""The published learning rate: up in a line over the warm-up, then down by the square of a cosine, step by step."""

import math


def rate_factor(step: int, warmup_steps: int, total_steps: int) -> float:
    """Share of the learning rate at a step, counted from 0: step / warm-up, then cos^2(pi/2 * progress) down to 0.

    The first step has rate 0, as published.
    """
    if step < warmup_steps:
        return step / warmup_steps
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return math.cos(0.5 * math.pi * min(1.0, progress)) ** 2
