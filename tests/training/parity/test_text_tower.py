"""The text tower against BERT written out (Devlin et al. 2019) and the published pooling, in float64; text cleaning."""

import math
import re

import pytest
import torch

from training.mammo_clip.model import Projection, TextConfig, TextEncoder, unit_length
from training.mammo_clip.texts import clean_section

CONFIG = TextConfig(vocabulary=40, hidden=24, layers=3, heads=4, intermediate=48, positions=20)


def hidden_states(weights: dict[str, torch.Tensor], token_ids: list[int]) -> torch.Tensor:
    """Last hidden states (T, hidden) of one text without padding: embeddings, then attention and MLP, norms after."""

    def linear(x, at):
        return x @ weights[f"{at}.weight"].T + weights[f"{at}.bias"]

    def norm(x, at):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-12)
        return scaled * weights[f"{at}.weight"] + weights[f"{at}.bias"]

    tables = [weights[f"embeddings.{part}_embeddings.weight"] for part in ("word", "position", "token_type")]
    rows = [tables[0][token] + tables[1][place] + tables[2][0] for place, token in enumerate(token_ids)]
    x = norm(torch.stack(rows), "embeddings.LayerNorm")
    size = CONFIG.hidden // CONFIG.heads
    for layer in range(CONFIG.layers):
        at = f"encoder.layer.{layer}"
        query, key, value = (linear(x, f"{at}.attention.self.{part}") for part in ("query", "key", "value"))
        heads = []
        for head in range(CONFIG.heads):
            part = slice(head * size, (head + 1) * size)
            logits = query[:, part] @ key[:, part].T / math.sqrt(size)
            shares = torch.exp(logits - logits.max(1, keepdim=True).values)
            heads.append(shares / shares.sum(1, keepdim=True) @ value[:, part])
        x = norm(x + linear(torch.cat(heads, 1), f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        inner = linear(x, f"{at}.intermediate.dense")
        inner = inner * 0.5 * (1.0 + torch.erf(inner / math.sqrt(2.0)))
        x = norm(x + linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
    return x


def drawn() -> TextEncoder:
    encoder = TextEncoder(CONFIG).double().eval()
    generator = torch.Generator().manual_seed(3)
    for value in encoder.state_dict().values():
        value.copy_(torch.randn(value.shape, generator=generator, dtype=value.dtype) * 0.3)
    return encoder


@pytest.mark.parametrize("lengths", [(3,), (9, 4, 20), (2, 2)])
def test_text_is_pooled_at_its_last_token_whatever_the_padding(lengths):
    encoder = drawn()
    weights = {key.removeprefix("text_encoder."): value for key, value in encoder.state_dict().items()}
    generator = torch.Generator().manual_seed(len(lengths))
    texts = [[2, *torch.randint(5, 40, (length - 2,), generator=generator).tolist(), 3] for length in lengths]
    longest = max(lengths) + (4 if max(lengths) < 16 else 0)
    token_ids = torch.tensor([text + [0] * (longest - len(text)) for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])
    with torch.no_grad():
        own = encoder(token_ids, mask)
    expected = torch.stack([hidden_states(weights, text)[-1] for text in texts])
    assert torch.allclose(own, expected, rtol=1e-9, atol=1e-10)


def test_embedding_is_one_linear_layer_and_plain_division_by_the_length():
    torch.manual_seed(0)
    projection = Projection(24, 6).double()
    features = torch.randn(3, 24, dtype=torch.float64)
    weight, bias = projection.projection.weight.detach().numpy(), projection.projection.bias.detach().numpy()
    for own, row in zip(unit_length(projection(features)).detach().numpy(), features.numpy(), strict=True):
        plain = [sum(w * x for w, x in zip(line, row, strict=True)) + b for line, b in zip(weight, bias, strict=True)]
        length = math.sqrt(sum(value * value for value in plain))
        assert own.tolist() == pytest.approx([value / length for value in plain], rel=1e-12)


RAW = (
    "There is a new 1.2 cm mass in the right breast.\nStable. No change since 3/2019. BI-RADS 4: suspicious finding.",
    "IMPRESSION: No evidence of malignancy.  Normal interval follow-up is recommended in 12 months.",
    "Überprüfung der rechten Brust empfohlen. ok. One two. One two three.",
)


@pytest.mark.parametrize("raw", RAW)
def test_section_is_cleaned_by_the_published_steps(raw):
    """BI-RADS joined, line ends as blanks, split at ". ", lower case, words and punctuation parted, ASCII kept,
    sentences of more than two tokens kept, no periods.
    """
    kept = []
    for sentence in raw.replace("BI-RADS", "BIRADS").replace("\n", " ").split(". "):
        tokens = [token.encode("ascii", "ignore").decode() for token in re.findall(r"\w+|[^\w\s]+", sentence.lower())]
        tokens = [token.replace(".", "") for token in tokens]
        tokens = [token for token in tokens if token]
        if len(tokens) > 2:
            kept.append(" ".join(tokens))
    assert clean_section(raw) == tuple(kept)
    assert "." not in " ".join(kept)
