"""The small WordPiece vocabulary of our own models, and the command that made it.

`python -m training.mammo_clip.vocabulary --cesm TABLE --cbis TABLE TABLE` trains it on the report grammar's sentences,
the phantoms' reports, words of screening reports, the findings of CDD-CESM (Khaled et al. 2022, doi 10.7937/29kw-ae92,
CC BY 4.0) and the descriptors of CBIS-DDSM (Lee et al. 2017, CC BY 3.0); words are kept of them, no sentence. The
library's trainer breaks ties between equally frequent pieces by chance: another run may differ in a few inner pieces,
so the file is committed.
"""

import argparse
import csv
import string
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from node.mammography.views import STANDARD_VIEWS, Laterality
from node.mammography.wordpiece import END, PAD, START, UNKNOWN, WordPiece, load_wordpiece
from training.mammo_clip import grammar
from training.mammo_clip.readers import read_cesm_texts
from training.phantoms import make_exam

VOCABULARY = Path(__file__).with_name("vocabulary.txt")
SIZE = 1500
MASK = "[MASK]"
PHANTOM_EXAMS = 300
_CHARACTERS = string.ascii_lowercase + string.digits


REPORT_WORDS = (
    "digital screening mammography of both breasts, bilateral cc and mlo views, compared with prior examinations",
    "diagnostic mammogram with additional views, spot compression, magnification, tomosynthesis and ultrasound",
    "history: family history of breast cancer, palpable lump, pain, nipple discharge, previous surgery, lumpectomy",
    "breast composition: the breasts are almost entirely fatty; scattered areas of fibroglandular density",
    "the breast tissue is heterogeneously dense, which may obscure small masses; the breasts are extremely dense",
    "findings: impression: conclusion: assessment: recommendation: indication: technique: comparison: birads category",
    "0 incomplete, 1 negative, 2 benign, 3 probably benign, 4 suspicious abnormality, 5 highly suggestive of cancer",
    "mass shape: oval, round, irregular; margin: circumscribed, obscured, microlobulated, indistinct, spiculated",
    "equal density, high density, low density, fat containing; lipoma, hamartoma, fibroadenoma, cyst, hematoma",
    "calcifications: amorphous, coarse heterogeneous, fine pleomorphic, fine linear branching, regional, diffuse",
    "calcifications: coarse popcorn-like, large rod-like, milk of calcium, lucent-centered, punctate, dystrophic",
    "solitary dilated duct, trabecular thickening, axillary adenopathy, skin lesion, intramammary lymph node",
    "unchanged, stable, larger, smaller, increased, decreased, resolved, not present before, since last examination",
    "biopsy clip, biopsy marker, surgical clips, implants, pacemaker, post-operative scar, radiation therapy changes",
    "return to routine annual screening; short interval follow-up in six months; biopsy is recommended; recall",
    "invasive ductal carcinoma, lobular carcinoma, in situ, malignancy, cancer, benign, fibrocystic changes",
    "o'clock position, cm from the nipple, mm, millimeters, centimeters, measuring, retroareolar, inferior, superior",
    "medial, lateral, quadrant, central, tail, axilla, pectoral muscle, chest wall, skin, areola, depth, view, image",
)
"""What screening reports are made of, after the headings and terms of the BI-RADS lexicon, in words of our own."""


def own_tokenizer() -> WordPiece:
    """The tokenizer of the committed vocabulary: lower case, no word of ASCII letters and digits is unknown."""
    return load_wordpiece(VOCABULARY, lower_case=True)


def grammar_sentences() -> Iterator[str]:
    """Every sentence that the grammar can say, on the right, on the left, and without a side."""
    sides = (None, Laterality.RIGHT, Laterality.LEFT)
    for name in grammar.ATTRIBUTES:
        for side in sides:
            yield from grammar.positives(name, side)
            yield from grammar.negatives(name, side)
    yield from grammar.NO_FINDING


def phantom_sentences(exams: int = PHANTOM_EXAMS) -> Iterator[str]:
    """Reports of the first training phantoms, with and without sides."""
    for seed in range(exams):
        exam = make_exam(seed)
        yield from exam.sentences()
        for view in STANDARD_VIEWS:
            yield from exam.view_sentences(view)


def descriptors(table: Path) -> Iterator[str]:
    """Shape, margin, type and distribution as one of CBIS-DDSM's description tables writes them."""
    with table.open(newline="", encoding="utf-8-sig") as file:
        for record in csv.DictReader(file):
            for column in ("mass shape", "mass margins", "calc type", "calc distribution"):
                yield (record.get(column) or "").replace("_", " ").replace("-", " ")


def train_vocabulary(sentences: Iterable[str], size: int = SIZE) -> list[str]:
    """Special pieces, each letter and digit at the start and inside of a word, ASCII punctuation, then learnt pieces.

    The order follows from the pieces alone, not from how the trainer stored them.
    """
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = [PAD, UNKNOWN, START, END, MASK]
    singles = [*_CHARACTERS, *(f"##{character}" for character in _CHARACTERS), *string.punctuation]
    trainer = trainers.WordPieceTrainer(vocab_size=size, min_frequency=1, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(sentences, trainer)
    learnt = sorted(piece for piece in tokenizer.get_vocab() if piece.isascii())
    return list(dict.fromkeys([*special, *singles, *learnt]))


def main() -> None:
    """Train the vocabulary and write it, a piece a line."""
    parser = argparse.ArgumentParser(prog="python -m training.mammo_clip.vocabulary", description=main.__doc__)
    parser.add_argument("--cesm", type=Path, required=True, help="CDD-CESM's table of annotations")
    parser.add_argument("--cbis", type=Path, nargs="*", default=(), help="CBIS-DDSM's description tables")
    parser.add_argument("--out", type=Path, default=VOCABULARY, help="file to write")
    arguments = parser.parse_args()
    findings = (sentence for _, _, sentence in read_cesm_texts(arguments.cesm).rows)
    described = chain.from_iterable(descriptors(table) for table in arguments.cbis)
    pieces = train_vocabulary(chain(grammar_sentences(), phantom_sentences(), findings, described, REPORT_WORDS))
    arguments.out.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    print(f"{len(pieces)} pieces")


if __name__ == "__main__":
    main()
