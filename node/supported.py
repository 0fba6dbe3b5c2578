"""What the listener accepts: SOP classes and transfer syntaxes, as conformance statements list them."""

from pydicom import uid

LABEL_MAP_SEGMENTATION_STORAGE = uid.UID("1.2.840.10008.5.1.4.1.1.66.7")
"""pydicom 3.0.2 does not know it."""

MAMMOGRAPHY = (
    uid.DigitalMammographyXRayImageStorageForPresentation,
    uid.DigitalMammographyXRayImageStorageForProcessing,
    uid.BreastTomosynthesisImageStorage,
    uid.BreastProjectionXRayImageStorageForPresentation,
    uid.BreastProjectionXRayImageStorageForProcessing,
)
SECONDARY_CAPTURE = (
    uid.SecondaryCaptureImageStorage,
    uid.MultiFrameSingleBitSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    uid.MultiFrameTrueColorSecondaryCaptureImageStorage,
)
RESULTS = (
    uid.EnhancedSRStorage,
    uid.ComprehensiveSRStorage,
    uid.Comprehensive3DSRStorage,
    uid.MammographyCADSRStorage,
    uid.SegmentationStorage,
    LABEL_MAP_SEGMENTATION_STORAGE,
    uid.ParametricMapStorage,
    uid.GrayscaleSoftcopyPresentationStateStorage,
    uid.ColorSoftcopyPresentationStateStorage,
    uid.KeyObjectSelectionDocumentStorage,
)
"""Kinds of object that a PACS may send back to who made them."""
CLASS_OF_KIND: dict[str, uid.UID] = {
    "CADSR": uid.MammographyCADSRStorage,
    "SR": uid.Comprehensive3DSRStorage,
    "GSPS": uid.GrayscaleSoftcopyPresentationStateStorage,
    "SC": uid.SecondaryCaptureImageStorage,
    "SCVIEW": uid.SecondaryCaptureImageStorage,
    "SEG": uid.SegmentationStorage,
    "LABELMAP": LABEL_MAP_SEGMENTATION_STORAGE,
    "HEATMAP": uid.SegmentationStorage,
    "KOS": uid.KeyObjectSelectionDocumentStorage,
    "REJECT": uid.KeyObjectSelectionDocumentStorage,
}
"""The SOP class of each kind of object that the node sends; kinds by the words of settings.toml."""
ACCOMPANYING = (uid.XRayRadiationDoseSRStorage,)
"""What a modality sends along with its images: many senders give up the whole study where it is refused."""

STORAGE_CLASSES: tuple[str, ...] = (*MAMMOGRAPHY, *SECONDARY_CAPTURE, *RESULTS, *ACCOMPANYING)
WITH_PIXELS: frozenset[str] = frozenset((*MAMMOGRAPHY, *SECONDARY_CAPTURE))
"""Classes whose objects must hold pixel data."""

TRANSFER_SYNTAXES: tuple[str, ...] = (
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.RLELossless,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.JPEGLosslessSV1,
    uid.JPEGLossless,
    uid.JPEGLSNearLossless,
    uid.JPEG2000,
    uid.HTJ2K,
    uid.JPEGExtended12Bit,
    uid.JPEGBaseline8Bit,
)
"""In order of preference where a sender offers several in one context: as it is, without loss, with loss."""
