"""CLIP written down again in numpy and float64, one image and one text at a time, straight from the papers."""

import math

import numpy as np

State = dict[str, np.ndarray]


def layer_norm(x: np.ndarray, state: State, name: str) -> np.ndarray:
    normed = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return normed * state[name + ".weight"] + state[name + ".bias"]


def block(x: np.ndarray, state: State, name: str, heads: int, activation: str, causal: bool) -> np.ndarray:
    """Tokens (T, d), head by head and query by query."""
    normed = layer_norm(x, state, name + "ln_1")
    parts = normed @ state[name + "attn.in_proj_weight"].T + state[name + "attn.in_proj_bias"]
    query, key, value = np.split(parts, 3, axis=1)
    size = x.shape[1] // heads
    mixed = np.zeros_like(x)
    for head in range(heads):
        columns = slice(head * size, (head + 1) * size)
        for row in range(len(x)):
            last = row + 1 if causal else len(x)
            weights = np.exp(key[:last, columns] @ query[row, columns] / math.sqrt(size))
            mixed[row, columns] = weights @ value[:last, columns] / weights.sum()
    x = x + mixed @ state[name + "attn.out_proj.weight"].T + state[name + "attn.out_proj.bias"]
    hidden = layer_norm(x, state, name + "ln_2") @ state[name + "mlp.c_fc.weight"].T + state[name + "mlp.c_fc.bias"]
    if activation == "quick_gelu":
        hidden = hidden / (1 + np.exp(-1.702 * hidden))
    else:
        hidden = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
    return x + hidden @ state[name + "mlp.c_proj.weight"].T + state[name + "mlp.c_proj.bias"]


def image_tokens(image: np.ndarray, state: State) -> np.ndarray:
    """(3, H, W) to the tokens before the first block, patch by patch."""
    kernel = state["visual.conv1.weight"]
    patch = kernel.shape[2]
    tokens = [state["visual.class_embedding"]]
    for top in range(0, image.shape[1], patch):
        for left in range(0, image.shape[2], patch):
            tokens.append((kernel * image[:, top : top + patch, left : left + patch]).sum((1, 2, 3)))
    return layer_norm(np.stack(tokens) + state["visual.positional_embedding"], state, "visual.ln_pre")


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.sqrt((vector**2).sum())


def encode_image(image: np.ndarray, state: State, layers: int, heads: int, activation: str) -> np.ndarray:
    x = image_tokens(image, state)
    for layer in range(layers):
        x = block(x, state, f"visual.transformer.resblocks.{layer}.", heads, activation, causal=False)
    return unit(layer_norm(x[0], state, "visual.ln_post") @ state["visual.proj"])


def encode_text(ids: list[int], state: State, layers: int, heads: int, activation: str) -> np.ndarray:
    x = state["token_embedding.weight"][ids] + state["positional_embedding"][: len(ids)]
    for layer in range(layers):
        x = block(x, state, f"transformer.resblocks.{layer}.", heads, activation, causal=True)
    end = max(range(len(ids)), key=lambda place: (ids[place], -place))
    return unit(layer_norm(x[end], state, "ln_final") @ state["text_projection"])
