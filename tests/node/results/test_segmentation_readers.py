"""What other programs read out of our segmentations: highdicom, dcmqi, GDCM, DCMTK, the RLE decoder of pylibjpeg."""

import gzip
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import highdicom
import jpeg_ls
import numpy as np
import pytest
import rle.rle
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from node.mammography.codecs import decompress
from node.results import heatmap_segmentation, labelmap, segmentation
from node.results.reading import EncodedResult, Reading
from node.results.segmentation import pack_bits
from tests.node.results import exams
from tests.node.results.test_segmentation_frames import SPACING, read, spaced

FRAMES = ("source", "own")


def two_of_each() -> Reading:
    """A view with two regions and two kinds of heat."""
    made = spaced(exams.reading())
    lesion, heat = made.findings[0], made.views[0].heatmap
    x, y = lesion.centre
    aside = [(column - x + 250.0, row - y + 900.0) for column, row in lesion.contour]
    second = replace(lesion, centre=(250.0, 900.0), contour=tuple(aside), probability=0.5)
    assert heat is not None
    view = replace(made.views[0], heatmap=np.stack([heat[0], 0.7 * np.roll(heat[0], 60, axis=0)]))
    return replace(made, views=(view, *made.views[1:]), findings=(lesion, second, *made.findings[1:]))


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Kind and frame to the file of the view with two of each."""
    folder, made = tmp_path_factory.mktemp("segmentations"), two_of_each()
    files = {}
    for frame in FRAMES:
        for module in (segmentation, labelmap, heatmap_segmentation):
            result: EncodedResult = module.encode(made, exams.sources(), frame)[0]
            file = folder / f"{result.kind.value}-{frame}.dcm"
            file.write_bytes(result.content)
            files[file.stem] = file
    return files


def frames_of(dataset: Dataset) -> NDArray[np.uint8]:
    """Pixels (frames, rows, columns) as pydicom decodes them."""
    return dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns)


@pytest.mark.parametrize("name", [f"{kind}-{frame}" for kind in ("SEG", "LABELMAP", "HEATMAP") for frame in FRAMES])
def test_highdicom_reads_the_same_pixels_by_source_image(objects, name):
    dataset = dcmread(objects[name])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = highdicom.seg.segread(str(objects[name]))
    fractional = {"rescale_fractional": False} if dataset.SegmentationType == "FRACTIONAL" else {}
    image = exams.sources()[two_of_each().views[0].view].SOPInstanceUID
    seen = np.moveaxis(opened.get_pixels_by_source_instance([image], **fractional)[0], -1, 0)
    held = frames_of(dataset)
    if dataset.SegmentationType == "LABELMAP":
        held = np.stack([held[0] == number for number in (1, 2)])
    assert seen.shape == (2, exams.ROWS, exams.COLUMNS)
    assert (seen == held).all()
    assert [opened.get_segment_description(number).segment_number for number in (1, 2)] == [1, 2]


def nrrd(file: Path) -> tuple[tuple[float, float], NDArray[np.generic]]:
    """(row, column) spacing and voxels (z, y, x) of a NRRD file as dcmqi writes it."""
    head, _, data = file.read_bytes().partition(b"\n\n")
    header = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
    assert header["encoding"] == "gzip"
    x, y, z = (int(size) for size in header["sizes"].split())
    across, down, _ = (direction.strip("()").split(",") for direction in header["space directions"].split())
    assert [float(number) for number in (across[1], across[2], down[0], down[2])] == [0, 0, 0, 0]
    voxels = np.frombuffer(gzip.decompress(data), {"short": "<i2", "unsigned char": "u1"}[header["type"]])
    return (float(down[1]), float(across[0])), voxels.reshape(z, y, x)


@pytest.mark.parametrize("kind", ["SEG", "LABELMAP", "HEATMAP"])
def test_dcmqi_reads_plane_and_pixels_of_our_own_frame(objects, kind, tmp_path):
    tool = Path(sys.executable).with_name("segimage2itkimage")
    command = [tool, "--inputDICOM", objects[f"{kind}-own"], "--outputDirectory", tmp_path, "-t", "nrrd", "-p", "it"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    images = [nrrd(file) for file in tmp_path.glob("it-*.nrrd")]
    assert {spacing for spacing, _ in images} == {SPACING}
    held = frames_of(dcmread(objects[f"{kind}-own"]))
    marked = np.any([voxels[0] != 0 for _, voxels in images], axis=0)
    assert (marked == (held != 0).any(axis=0)).all()
    assert max(voxels.max() for _, voxels in images) == {"SEG": 2, "LABELMAP": 2, "HEATMAP": held.max()}[kind]


GDCM = """
import sys, gdcm
reader = gdcm.ImageReader()
reader.SetFileName(sys.argv[1])
assert reader.Read()
sys.stdout.buffer.write(reader.GetImage().GetBuffer().encode("utf-8", "surrogateescape"))
"""
"""In a process of its own: GDCM aborts on what it does not expect. It does not know the class of label maps."""


@pytest.mark.parametrize("name", [f"{kind}-{frame}" for kind in ("SEG", "HEATMAP") for frame in FRAMES])
def test_gdcm_decodes_them(objects, name):
    done = subprocess.run([sys.executable, "-c", GDCM, objects[name]], capture_output=True, check=True)
    held = frames_of(dcmread(objects[name]))
    assert done.stdout == (pack_bits(held.astype(bool)) if name.startswith("SEG") else held.tobytes())


def test_pylibjpeg_s_decoder_decodes_the_heat(objects):
    dataset = dcmread(objects["HEATMAP-source"])
    frames = generate_frames(dataset.PixelData, number_of_frames=2)
    decoded = b"".join(bytes(rle.rle.decode_frame(frame, dataset.Rows * dataset.Columns, 8, "<")) for frame in frames)
    assert decoded == frames_of(dataset).tobytes()


def test_charls_decodes_the_labels(objects):
    dataset = dcmread(objects["LABELMAP-source"])
    frame = next(generate_frames(dataset.PixelData, number_of_frames=1))
    assert (jpeg_ls.decode(np.frombuffer(frame, np.uint8)) == dataset.pixel_array).all()


@pytest.mark.parametrize(("name", "tool"), [("LABELMAP-source", "dcmdjpls"), ("HEATMAP-source", "dcmdrle")])
def test_dcmtk_decompresses_them(objects, name, tool, tmp_path):
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is missing: apt-get install dcmtk")
    subprocess.run([tool, objects[name], tmp_path / "native.dcm"], check=True)
    assert (frames_of(dcmread(tmp_path / "native.dcm")) == frames_of(dcmread(objects[name]))).all()


@pytest.mark.parametrize(
    ("name", "syntax"),
    [
        ("SEG-source", ExplicitVRLittleEndian),
        ("LABELMAP-source", JPEGLSLossless),
        ("LABELMAP-own", ExplicitVRLittleEndian),
        ("HEATMAP-source", RLELossless),
        ("HEATMAP-own", RLELossless),
    ],
)
def test_a_destination_that_takes_no_compression_gets_the_same_pixels(objects, name, syntax):
    dataset = dcmread(objects[name])
    assert dataset.file_meta.TransferSyntaxUID == syntax
    native = decompress(dataset)
    assert native.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    bits = 1 if name.startswith("SEG") else 8
    assert len(native.PixelData) == int(dataset.NumberOfFrames) * exams.ROWS * exams.COLUMNS * bits // 8
    assert (frames_of(native) == frames_of(read_back(dataset))).all()
    assert native.SOPInstanceUID == dataset.SOPInstanceUID


def read_back(dataset: Dataset) -> Dataset:
    """The file again: decompress leaves the data set that it was given as it was."""
    return dcmread(dataset.filename)


def test_one_frame_of_heat_is_decompressed_too():
    result = heatmap_segmentation.encode(exams.reading(), exams.sources())[0]
    assert (decompress(read(result)).pixel_array == read(result).pixel_array).all()
