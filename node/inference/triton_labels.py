"""The labels that a server puts beside the finding axis, read by Triton's classification extension of the protocol."""

from tritonclient import grpc as triton

from node.errors import ContractError
from node.inference.tensors import probe, wire_inputs
from node.inference.triton_served import WIRE_NAMES, ServedModel
from node.mammography.contract import ModelContract

LABELLED = "finding_logits"


def served_labels(served: ServedModel, name: str, version: str, contract: ModelContract) -> tuple[str, ...]:
    """The label of each finding of the first view, in the order of the axis; "" where it has none. One inference.

    Other views' cells of the axis have no label of their own: labels.txt has one line for each finding.
    """
    tensors = []
    for key, array in wire_inputs(*probe(contract), contract).items():
        tensors.append(triton.InferInput(key, list(array.shape), WIRE_NAMES[array.dtype.name]))
        tensors[-1].set_data_from_numpy(array)
    cells = len(contract.views) * len(contract.findings)
    wanted = [triton.InferRequestedOutput(LABELLED, class_count=cells)]
    result = served.ask(
        lambda client, seconds: client.infer(
            name, tensors, model_version=version, outputs=wanted, client_timeout=seconds
        )
    )
    labels = dict.fromkeys(range(cells), "")
    for told in result.as_numpy(LABELLED).ravel():
        _, index, *label = told.decode().split(":", 2)  # value:index or value:index:label
        labels[int(index)] = label[0] if label else ""
    return tuple(labels[index] for index in range(len(contract.findings)))


def check_labels(labels: tuple[str, ...], contract: ModelContract) -> None:
    """Raises ContractError where the server names the findings otherwise; one without labels names none."""
    wanted = tuple(kind.value for kind in contract.findings)
    if any(labels) and labels != wanted:
        named = ", ".join(label or "none" for label in labels)
        raise ContractError(
            f"model: the server's labels.txt names {named}; the contract's findings are {', '.join(wanted)}"
        )
