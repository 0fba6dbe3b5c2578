"""Tensors of exam_query and text_encoder: what the graphs must look like, what they answer, and a trial of each."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from node.errors import ContractError
from node.inference.tensors import (
    ABSENT_LOGIT,
    SELF_CHECK_TOLERANCE,
    Outputs,
    Signature,
    absent_as,
    batch_of_one,
    heat,
    unit,
    wire_inputs,
)
from node.mammography.contract import QueryAnswer, QueryContract, TextContract
from node.mammography.views import STANDARD_VIEWS
from node.mammography.wordpiece import WordPiece

Run = Callable[[dict[str, NDArray[np.generic]]], Outputs]


def query_signature(contract: QueryContract, queries: int = -1) -> tuple[Signature, Signature]:
    """Inputs and outputs of exam_query; -1: the batch, and the number of queries where it is left out."""
    views = len(STANDARD_VIEWS)
    inputs = {
        "views": (contract.wire_type, (-1, views, 1, *contract.input_shape)),
        "present": ("bool", (-1, views)),
        "query_embeddings": ("float32", (-1, queries, contract.embed_dim)),
    }
    outputs = {
        "query_heatmaps": ("float32", (-1, views, queries, *contract.heatmap_shape)),
        "query_logits": ("float32", (-1, views, queries)),
    }
    return inputs, outputs


def text_signature(contract: TextContract) -> tuple[Signature, Signature]:
    """Inputs and outputs of text_encoder."""
    tokens = ("int64", (-1, contract.max_tokens))
    return {"token_ids": tokens, "mask": tokens}, {"text_embeddings": ("float32", (-1, contract.embed_dim))}


def query_inputs(
    views: NDArray[np.float32],
    present: NDArray[np.bool_],
    embeddings: NDArray[np.float32],
    contract: QueryContract,
) -> dict[str, NDArray[np.generic]]:
    """One exam and its queries (Q, D) as a batch of one. Raises InferenceError where the exam does not fit."""
    queries = np.ascontiguousarray(embeddings, dtype=np.float32)[None]
    return {**wire_inputs(views, present, contract), "query_embeddings": queries}


def query_answer(outputs: Outputs, contract: QueryContract, present: NDArray[np.bool_], queries: int) -> QueryAnswer:
    """Outputs for a batch of one as an answer that keeps the contract's rules to the bit. Raises InferenceError."""
    arrays = batch_of_one(outputs, query_signature(contract, queries)[1])
    return QueryAnswer(
        logits=absent_as("query_logits", arrays["query_logits"], present, ABSENT_LOGIT),
        heatmaps=heat("query_heatmaps", arrays["query_heatmaps"], present),
    )


def embed_text(run: Run, text: str, contract: TextContract, tokens: WordPiece) -> NDArray[np.float32]:
    """The unit vector (D,) of one text. Raises InferenceError."""
    token_ids, mask = tokens.batch([text], contract.max_tokens, pad_to=contract.max_tokens)
    arrays = batch_of_one(run({"token_ids": token_ids, "mask": mask}), text_signature(contract)[1])
    return unit("text_embeddings", arrays["text_embeddings"], np.ones((), dtype=np.bool_))


def check_query(run: Run, contract: QueryContract) -> None:
    """A trial of two queries together and of one alone, with other pixels in an absent view: the same answers.

    Raises ContractError where an answer depends on what it must not, InferenceError where it breaks the contract.
    """
    generator = np.random.default_rng(0)
    views = generator.random((len(STANDARD_VIEWS), 1, *contract.input_shape), dtype=np.float32)
    present = np.array([True, True, False, True])
    queries = generator.normal(size=(2, contract.embed_dim)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    both = query_inputs(views, present, queries, contract)
    alone = query_inputs(views, present, queries[:1], contract)
    alone["views"] = alone["views"].copy()
    alone["views"][0, 2] = 1
    first, second = (
        query_answer(run(inputs), contract, present, inputs["query_embeddings"].shape[1]) for inputs in (both, alone)
    )
    for name in ("logits", "heatmaps"):
        together, single = getattr(first, name)[:, :1], getattr(second, name)
        if not np.allclose(together, single, rtol=SELF_CHECK_TOLERANCE, atol=SELF_CHECK_TOLERANCE):
            raise ContractError(f"model: query {name} depend on another query or on the pixels of an absent view")


def check_text(run: Run, contract: TextContract, tokens: WordPiece) -> None:
    """A trial: what stands under the padding of a text changes nothing. Raises ContractError, InferenceError."""
    text = "a"
    token_ids, mask = tokens.batch([text], contract.max_tokens, pad_to=contract.max_tokens)
    changed = np.where(mask == 1, token_ids, (token_ids + 1) % len(tokens.ids))
    embedded = embed_text(run, text, contract, tokens)
    arrays = batch_of_one(run({"token_ids": changed, "mask": mask}), text_signature(contract)[1])
    if not np.allclose(embedded, arrays["text_embeddings"], rtol=SELF_CHECK_TOLERANCE, atol=SELF_CHECK_TOLERANCE):
        raise ContractError("model: text_embeddings depend on what stands under the padding")
