"""The byte pairs of our own small models, and the command that learnt them from our own sentences.

`python -m training.multi_view.own_vocabulary` writes vocabulary.txt from the report grammar, the phantoms' reports,
words of screening reports and the prompts of whole exams. Any other word is written in bytes. The file is committed:
the library's trainer may break ties between equally frequent pairs another way in another version.
"""

import argparse
from itertools import chain
from pathlib import Path

from training.mammo_clip.vocabulary import REPORT_WORDS, grammar_sentences, phantom_sentences
from training.multi_view.case_prompts import DETAILED, SIMPLE
from training.multi_view.clip_tokenizer import OWN_VOCABULARY, load_clip_tokenizer, train_vocabulary

MERGES = 1500


def main() -> None:
    """Learn the merges and write them, one a line."""
    parser = argparse.ArgumentParser(prog="python -m training.multi_view.own_vocabulary", description=main.__doc__)
    parser.add_argument("--out", type=Path, default=OWN_VOCABULARY, help="file to write")
    arguments = parser.parse_args()
    prompts = (text for pairs in (SIMPLE, DETAILED) for text in (*pairs.negative, *pairs.positive))
    train_vocabulary(chain(grammar_sentences(), phantom_sentences(), REPORT_WORDS, prompts), MERGES, arguments.out)
    print(f"{load_clip_tokenizer(arguments.out).size} tokens")


if __name__ == "__main__":
    main()
