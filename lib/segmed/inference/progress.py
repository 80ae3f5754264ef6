"""What a caller learns of a long prediction while it runs, and how it stops one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

Masks = dict[int, np.ndarray]

Progress = Callable[[int, int, Mapping[int, np.ndarray]], None]
"""Called before each slice and after each result: `progress(done, most, found)`.

`done` slices out of at most `most` have been predicted, and `found` contains the masks (H, W) since the last
call by slice index; a later mask of a slice replaces an earlier one. The prediction is stopped by raising an
exception in this function: nothing is predicted after it, so that it ends within one slice.
"""
