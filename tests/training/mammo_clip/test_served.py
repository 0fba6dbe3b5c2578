"""The three served graphs: their rules in torch, and what ONNX Runtime and OpenVINO make of them."""

import numpy as np
import onnxruntime
import openvino
import pytest
import torch

from node.mammography.wordpiece import load_wordpiece
from tests.training.mammo_clip import tiny_served
from tests.training.mammo_clip.tiny_served import EMBED_DIM, HEIGHT, WIDTH
from training.deployment import served_module
from training.exam_encoder import ABSENT_LOGIT
from training.mammo_clip.factor import HeatSettings, channel_weights, heatmaps
from training.mammo_clip.loading import Input
from training.mammo_clip.localising import heat_grid
from training.mammo_clip.model import EfficientNetEncoder
from training.mammo_clip.served import ClipViews, ServedClip, ServedQuery, ServedText, normalise
from training.mammo_clip.served_export import exam_graph, query_graph, text_graph, text_space_of
from training.mammo_clip.vocabulary import VOCABULARY

PRESENT = [[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1]]
TEXTS = ("spiculated mass", "no suspicious calcifications in the upper outer breast at posterior depth")


@pytest.fixture(scope="module")
def clip():
    return tiny_served.clip()


@pytest.fixture(scope="module")
def served(clip):
    scale = torch.tensor([0.5, 1.0, 2.0, 0.25])
    return ServedClip(tiny_served.views_of(clip), tiny_served.heads(24), scale).eval()


@pytest.fixture(scope="module")
def query(served):
    return ServedQuery(served.views, torch.tensor(0.5)).eval()


def exams(batch=3, seed=0):
    image = torch.rand(batch, 4, 1, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))
    image[..., 50:] = 0.0
    return image


def asked(batch, count, seed=3):
    vectors = torch.randn(batch, count, EMBED_DIM, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=2)


def there(rows=PRESENT):
    return torch.tensor(rows, dtype=torch.bool).reshape(-1, 4)


@torch.inference_mode()
def run(module, *inputs):
    answer = module(*inputs)
    return answer if isinstance(answer, tuple) else (answer,)


def onnx_answers(graph, inputs):
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    return session.run(None, {name: value.numpy() for name, value in inputs.items()})


def openvino_answers(graph, inputs):
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(graph.SerializeToString()), "CPU", settings)
    answer = compiled({name: value.numpy() for name, value in inputs.items()})
    return [answer[output].copy() for output in compiled.outputs]


def apart(found, wanted):
    return max(float(np.abs(a - b.numpy()).max()) for a, b in zip(found, wanted, strict=True))


def test_outputs_have_the_contracts_shapes(served):
    shapes = [tuple(tensor.shape) for tensor in run(served, exams(), there())]
    assert shapes == [(3,), (3, EMBED_DIM), (3, 2), (3, 4, 4), (3, 4, 4, 12, 8), (3, 4, EMBED_DIM)]


@pytest.mark.parametrize("fill", [float("nan"), float("inf"), 0.0, 0.7])
def test_pixels_of_absent_views_change_no_bit(served, query, fill):
    image, present, vectors = exams(), there(), asked(3, 2)
    other = image.clone()
    other[~present] = fill
    for a, b in zip(run(served, image, present), run(served, other, present), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(run(query, image, present, vectors), run(query, other, present, vectors), strict=True):
        assert torch.equal(a, b)


def test_what_is_absent_says_so(served, query):
    outputs = served(exams(1), there([[1, 0, 1, 0]]))
    assert outputs.breast_logits[0, 1] == ABSENT_LOGIT
    assert outputs.breast_logits[0, 0] > ABSENT_LOGIT
    assert (outputs.finding_logits[0, [1, 3]] == ABSENT_LOGIT).all()
    assert (outputs.heatmaps[0, [1, 3]] == 0).all()
    assert (outputs.view_embeddings[0, [1, 3]] == 0).all()
    heat, logits = run(query, exams(1), there([[1, 0, 1, 0]]), asked(1, 2))
    assert (heat[0, [1, 3]] == 0).all()
    assert (logits[0, [1, 3]] == ABSENT_LOGIT).all()
    assert heat[0, 0].max() > 0


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("normalisation", ["fixed", "image"])
def test_a_constant_view_gives_finite_outputs(clip, value, normalisation):
    sees = Input(f"fit-{HEIGHT}x{WIDTH}", HEIGHT, WIDTH, normalisation, 1)
    model = ServedClip(tiny_served.views_of(clip, sees), tiny_served.heads(24), torch.ones(4)).eval()
    outputs = run(model, torch.full((1, 4, 1, HEIGHT, WIDTH), value), there([[1, 1, 1, 1]]))
    assert all(torch.isfinite(tensor).all() for tensor in outputs)


def test_a_batch_equals_its_exams_alone(served, query):
    image, present, vectors = exams(), there(), asked(3, 2)
    together, phrases = run(served, image, present), run(query, image, present, vectors)
    for row in range(3):
        own = slice(row, row + 1)
        alone = run(served, image[own], present[own])
        for a, b in zip(together, alone, strict=True):
            assert torch.allclose(a[own], b, atol=1e-4)
        for a, b in zip(phrases, run(query, image[own], present[own], vectors[own]), strict=True):
            assert torch.allclose(a[own], b, atol=1e-4)


def test_embeddings_have_unit_length_and_are_those_of_the_dual_encoder(served, clip):
    image, present = exams(1), there([[1, 1, 1, 0]])
    outputs = served(image, present)
    wanted = served_module(clip).encode_image(normalise(image[0], "fixed"))
    assert torch.allclose(outputs.view_embeddings[0, :3], wanted[:3], atol=1e-5)
    mean = torch.nn.functional.normalize(wanted[:3].mean(0), dim=0)
    assert torch.allclose(outputs.exam_embedding[0], mean, atol=1e-5)


def test_heat_is_the_weighted_sum_of_maps_over_a_fixed_scale(clip):
    views = tiny_served.views_of(clip, settings=HeatSettings(strongest=5, temperature=0.0))
    served = ServedClip(views, tiny_served.heads(24), torch.tensor([0.5, 1.0, 2.0, 0.25])).eval()
    image = exams(1)
    with torch.inference_mode():
        heat = served(image, there([[1, 1, 1, 1]])).heatmaps[0, 1]
        maps = views.image_encoder.features(normalise(image[0, 1:2], "fixed")).feature_map
        wanted = heatmaps(maps, channel_weights(views.mapper(maps, views.phrases), 5))[0]
    assert torch.allclose(heat, wanted / served.heat_scale[:, None, None], rtol=1e-4, atol=1e-5)


def test_fixed_weights_are_one_convolution_for_every_image(clip):
    views = tiny_served.views_of(clip)
    weights = torch.rand(int(clip.image_encoder.out_channels), 4)
    fixed = ClipViews(clip, views.mapper, views.sees, views.phrases, views.prompts, views.settings, weights).eval()
    with torch.inference_mode():
        features, _ = fixed.encode(exams(2))
        heat = fixed(exams(2)).maps
    wanted = torch.relu(torch.nn.functional.conv2d(features.feature_map, weights.T[:, :, None, None]))
    torch.testing.assert_close(heat.flatten(0, 1), wanted)


def test_one_phrase_does_not_see_another_and_heat_grows_by_its_scale(served, query):
    image, present = exams(1), there([[1, 1, 1, 1]])
    phrases = served.views.phrases[None]
    heat, logits = run(query, image, present, phrases)
    alone, own = run(query, image, present, phrases[:, 2:3])
    assert torch.allclose(heat[:, :, 2:3], alone, atol=1e-5)
    assert torch.allclose(logits[:, :, 2:3], own, atol=1e-4)
    findings = run(served, image, present)[4] * served.heat_scale[:, None, None]
    assert torch.allclose(heat * 0.5, findings, rtol=1e-4, atol=1e-5)


def test_exchanging_the_breasts_exchanges_their_logits(served):
    image = exams(1)
    here = served(image, there([[1, 1, 1, 1]]))
    back = served(image[:, [1, 0, 3, 2]], there([[1, 1, 1, 1]]))
    assert torch.allclose(here.breast_logits[0, [1, 0]], back.breast_logits[0], atol=1e-4)
    assert (here.exam_logit >= here.breast_logits.amax(1)).all()


def test_without_a_mirror_right_views_are_compared_as_left_ones(clip):
    sees = Input("mammo-clip", HEIGHT, WIDTH, "image", 1)
    hung, fitted = tiny_served.views_of(clip, sees), tiny_served.views_of(clip)
    views, heat = exams(1), torch.rand(1, 4, 4, 12, 8)
    right = [0, 2]
    turned, hot = views.clone(), heat.clone()
    turned[:, right], hot[:, right] = views[:, right].flip(-1), heat[:, right].flip(-1)
    assert torch.equal(hung._rings(turned, hot), fitted._rings(views, heat))


@pytest.mark.parametrize("how", ["fixed", "image"])
def test_normalisation_in_the_graph_is_that_of_training(how):
    planes = torch.rand(3, 20, 30)
    planes[1] = 0.4
    assert torch.allclose(normalise(planes[:, None], how), Input("x", 20, 30, how, 1).normalise(planes), atol=1e-5)


@pytest.fixture(scope="module")
def graphs(served, query, clip):
    return exam_graph(served), query_graph(query), text_graph(served_module(clip))


@pytest.mark.parametrize("answers", [onnx_answers, openvino_answers])
def test_exam_encoder_agrees_with_torch_for_any_batch(served, graphs, answers):
    for rows in (slice(0, 1), slice(0, 3)):
        image, present = exams()[rows], there()[rows]
        image[~present] = float("nan")
        found = answers(graphs[0], {"views": image, "present": present})
        assert apart(found, run(served, image, present)) < 1e-4


@pytest.mark.parametrize("answers", [onnx_answers, openvino_answers])
def test_exam_query_agrees_with_torch_for_any_number_of_phrases(query, graphs, answers):
    for batch, count in ((1, 1), (3, 4)):
        image, present, vectors = exams(batch), there(PRESENT[:batch]), asked(batch, count)
        found = answers(graphs[1], {"views": image, "present": present, "query_embeddings": vectors})
        assert apart(found, run(query, image, present, vectors)) < 1e-4


@pytest.mark.parametrize("answers", [onnx_answers, openvino_answers])
def test_text_encoder_agrees_with_the_dual_encoder_whatever_is_padded(clip, graphs, answers):
    tokenizer, twin = load_wordpiece(VOCABULARY, lower_case=True), served_module(clip)
    for texts, width in ((TEXTS, None), (TEXTS, 40), (TEXTS[:1], None), (TEXTS[:1] * 3, 9)):
        token_ids, mask = (torch.from_numpy(part) for part in tokenizer.batch(texts, 40, pad_to=width))
        with torch.inference_mode():
            wanted = twin.encode_text(token_ids, mask)
        assert apart(answers(graphs[2], {"token_ids": token_ids, "mask": mask}), (wanted,)) < 1e-5


def test_an_imported_encoder_with_static_padding_exports():
    clip = tiny_served.clip(EfficientNetEncoder("b0", channels=3, padding="static"))
    sees = Input("mammo-clip", 152, 96, "image", 3)
    served = ServedClip(tiny_served.views_of(clip, sees), tiny_served.heads(1280), torch.ones(4)).eval()
    image, present = torch.rand(1, 4, 1, 152, 96), there([[1, 1, 0, 1]])
    found = onnx_answers(exam_graph(served), {"views": image, "present": present})
    wanted = run(served, image, present)
    assert wanted[4].shape == (1, 4, 4, 4, 3)
    assert apart(found, wanted) < 1e-4


def test_the_text_space_is_that_of_all_weights_and_the_vocabulary(clip):
    mine = text_space_of(served_module(clip), b"a\nb\n")
    assert mine == text_space_of(served_module(tiny_served.clip()), b"a\nb\n")
    assert mine != text_space_of(served_module(clip), b"a\nc\n")
    assert mine != text_space_of(served_module(tiny_served.clip(seed=5)), b"a\nb\n")


def test_the_text_tower_as_a_module_agrees_with_the_dual_encoder(clip):
    token_ids, mask = (torch.from_numpy(p) for p in load_wordpiece(VOCABULARY, lower_case=True).batch(TEXTS, 40))
    with torch.inference_mode():
        assert torch.allclose(ServedText(clip)(token_ids, mask), clip.encode_text(token_ids, mask), atol=1e-6)


def test_cells_of_an_encoder_with_a_known_stride_are_measured_without_leaning_to_the_middle():
    torch.manual_seed(0)
    encoder = EfficientNetEncoder("b0", channels=1, padding="centred").eval()
    grid = heat_grid(encoder, lambda images: encoder.features(images).feature_map, torch.rand(2, 1, 320, 256))
    assert grid.stride == (32.0, 32.0)
    assert max(abs(offset - 0.5) for offset in grid.offset) < 16.0
