"""`python -m corpus FOLDER`: write the corpus, and a list of what is expected of each file."""

from __future__ import annotations

import sys
from pathlib import Path

from corpus.table import ROWS, write


def main() -> None:
    """Write all files and the list."""
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m corpus FOLDER")
    folder = Path(sys.argv[1])
    lines = ["file\texpected\tpublic thread"]
    for row in ROWS:
        path = write(row, folder)
        lines.append(
            f"{path.relative_to(folder)}\t{'read' if row.truth is not None else row.words}\t{row.thread}"
        )
    (folder / "expected.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"wrote {len(ROWS)} cases into {folder}")


if __name__ == "__main__":
    main()
