"""How our own objects are told from everybody else's: by Contributing Equipment Sequence (0018,A001).

A PACS sends back what it was sent; without this a result would start the next reading.
"""

from datetime import datetime

from pydicom import Dataset

from node.results import codes
from node.results.reading import ModelIdentity

MANUFACTURER = "mammoclip-node"
"""Manufacturer (0008,0070) of every object that the node makes, and of its item in Contributing Equipment."""


def is_ours(dataset: Dataset) -> bool:
    """Whether this node, or another of its kind, made the object. The data set may end before its pixels."""
    items = dataset.get("ContributingEquipmentSequence") or ()
    return any(item.get("Manufacturer", "") == MANUFACTURER and _is_processing(item) for item in items)


def _is_processing(item: Dataset) -> bool:
    purposes = item.get("PurposeOfReferenceCodeSequence") or ()
    stated = {(purpose.get("CodeValue"), purpose.get("CodingSchemeDesignator")) for purpose in purposes}
    return (codes.PROCESSING_EQUIPMENT.value, codes.PROCESSING_EQUIPMENT.scheme) in stated


def contributing_equipment(model: ModelIdentity, at: datetime) -> Dataset:
    """The item that names the algorithm: model, versions, weights (PS3.3 C.12.1.1.5). `at` is aware."""
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = [codes.code_item(codes.PROCESSING_EQUIPMENT)]
    item.Manufacturer = MANUFACTURER
    item.ManufacturerModelName = model.name[:64]
    item.DeviceSerialNumber = model.weights_hash[:64]
    item.SoftwareVersions = [model.version[:64], model.variant[:64]]
    item.ContributionDateTime = at.strftime("%Y%m%d%H%M%S.%f%z")
    item.ContributionDescription = "AI reading of mammograms, research use, not for diagnosis"
    return item
