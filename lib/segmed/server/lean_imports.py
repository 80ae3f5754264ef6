"""Packages that MONAI imports where they are installed, and that a server has no use for: 100 MiB and some
seconds."""

from __future__ import annotations

import sys

# experiment tracking, and the tables that it is made of; trainings run in processes of their own and have
# them
SPARED = ("mlflow", "pandas", "sklearn")


def spare_imports() -> list[str]:
    """Have this process take them for missing, which MONAI and transformers are prepared for.

    Returns:
        Those that are spared; what is imported already stays.
    """
    spared = [name for name in SPARED if name not in sys.modules]
    for name in spared:
        sys.modules[name] = None  # type: ignore[assignment]
    return spared
