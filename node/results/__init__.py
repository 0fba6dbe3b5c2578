"""A reading as DICOM objects, one file for each kind of object."""

from collections.abc import Mapping

from pydicom import Dataset

from node.mammography.views import View
from node.results.reading import EncodedResult, Reading


def encode_all(reading: Reading, sources: Mapping[View, Dataset]) -> tuple[EncodedResult, ...]:
    """The structured report, a segmentation for each view with findings, and the page of pictures, in this order.

    `sources`: the data set of each image read, its pixels not needed. The same reading and sources give the same
    bytes. Raises EncodeError.
    """
    # Here and not above: the listener asks node.results.ours alone and has no use for highdicom's 22 MB of tables.
    from node.results import secondary_capture, segmentation, structured_report

    return (
        structured_report.encode(reading, sources),
        *segmentation.encode(reading, sources),
        secondary_capture.encode(reading, sources),
    )
