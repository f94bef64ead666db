"""Write the text files that the package's own model is trained and measured on; nothing is trained here.

python scripts/prepare_default_corpus.py --data ../shared/data/text --out build/corpus
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from default_model.text_files import write_corpus


def main() -> None:
    """From the raw data to clean files."""
    parser = argparse.ArgumentParser(description="Prepare the default model's text.")
    parser.add_argument("--data", type=Path, required=True, help="the folder with stories.txt.xz, dialogues.jsonl.xz")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    arguments = parser.parse_args()
    print(json.dumps(write_corpus(arguments.data, arguments.out), indent=2))


if __name__ == "__main__":
    main()
