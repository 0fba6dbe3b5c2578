"""mammoclip-node: reads screening mammograms beside the PACS and answers in DICOM."""

__version__ = "0.1.0"
