"""Derive `course.data`'s table of what a strong and a weak model answered right.

    python tests/benchmarks/derive_routellm.py FOLDER

FOLDER holds `mmlu/responses/*.csv`, the per-question outcomes of RouteLLM's evaluation
(github.com/lm-sys/RouteLLM, Apache-2.0) on MMLU (Hendrycks et al. 2021, MIT). Of each question only the two outcomes
are kept, as a digit: 1 if Mixtral was right, plus 2 if GPT-4 was.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import course.data

SOURCE = (
    "Outcomes of gpt-4-1106-preview (2) and Mixtral-8x7B-Instruct-v0.1 (1) on MMLU's test questions, one digit each. "
    "Derived from the evaluations of RouteLLM (Ong et al., arXiv:2406.18665; github.com/lm-sys/RouteLLM, Apache-2.0); "
    "MMLU: Hendrycks et al., ICLR 2021 (MIT)."
)
STRONG, WEAK = "gpt-4-1106-preview", "mistralai/Mixtral-8x7B-Instruct-v0.1"


def main(folder: Path) -> None:
    """Write `routellm.json` from the outcomes in *folder*."""
    files = sorted((folder / "mmlu" / "responses").glob("mmlu_*.csv"))
    subjects = {path.stem.removeprefix("mmlu_"): codes(path) for path in files}
    target = Path(course.data.__file__).with_name("routellm.json")
    target.write_text(json.dumps({"source": SOURCE, "mmlu": subjects}, indent=1) + "\n", "utf-8")


def codes(path: Path) -> str:
    """Return a digit for each question of one subject."""
    with path.open(encoding="utf-8") as file:
        return "".join(
            str(2 * (row[STRONG] == "True") + (row[WEAK] == "True")) for row in csv.DictReader(file)
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
