"""The page at `/` as its user sees it: what the line below the image tells of a place, what the controls
show."""

from __future__ import annotations

import base64
import re
import zlib
from typing import Any

import numpy as np
from playwright.sync_api import Page, expect

Voxel = tuple[int, int, int]
Labelled = set[tuple[int, ...]]

# what the page tells of the voxel under a mouse at a place of the window: [i, j, k, label], or null beside
# the image
_READ = """
  const read = (clientX, clientY) => {
    document.querySelector('#overlay').dispatchEvent(new PointerEvent('pointermove', { clientX, clientY }));
    const [voxel, intensity, label] = document.querySelector('#place').textContent.split('   ');
    return voxel ? [...voxel.split(', ').map(Number), label ?? ''] : null;
  };
"""
# The middle of a voxel of the slice that is shown alone. Two looks beside the middle tell which axes run
# along the screen and how far apart voxels are there; from a place in the voxel, its borders are felt for.
_PLACE = f"""voxel => {{
  {_READ}
  const {{ left, top, width, height }} = document.querySelector('#overlay').getBoundingClientRect();
  const middle = [left + width / 2, top + height / 2];
  const start = read(...middle);
  const axes = [[1, 0], [0, 1]].map(([right, down], n) => {{
    for (let far = 0.45 * [width, height][n]; far > 1; far *= 0.8) {{
      const there = read(middle[0] + right * far, middle[1] + down * far);
      if (!there) continue;
      const axis = [0, 1, 2].find(a => there[a] !== start[a]);
      if (axis !== undefined) return {{ axis, pixels: far / (there[axis] - start[axis]) }};
    }}
    throw new Error('The page tells no voxels.');
  }});
  const at = axes.map(({{ axis, pixels }}, n) => middle[n] + (voxel[axis] - start[axis]) * pixels);
  const off = told => axes.map(({{ axis }}) => voxel[axis] - told[axis]);
  for (let tries = 0; ; tries++) {{
    const told = read(...at);
    if (!told || tries > 20) throw new Error(`The page shows no voxel ${{voxel}}.`);
    const [x, y] = off(told);
    if (!x && !y) break;
    at[0] += x * axes[0].pixels;
    at[1] += y * axes[1].pixels;
  }}
  const isThere = place => {{
    const told = read(...place);
    return Boolean(told) && off(told).every(value => value === 0);
  }};
  for (const n of [0, 1]) {{
    const ends = [-1, 1].map(way => {{
      let end = at[n];
      const place = [...at];
      while (isThere(place)) {{
        end = place[n];
        place[n] += way / 4;
      }}
      return end;
    }});
    at[n] = (ends[0] + ends[1]) / 2;
  }}
  return {{ at, axes: axes.map(({{ axis }}) => axis) }};
}}"""
_READ_ALL = f"places => {{ {_READ} return places.map(([x, y]) => read(x, y)); }}"


def ready(page: Page) -> None:
    """Wait until nothing is on its way."""
    page.wait_for_selector("main[aria-busy=false]", timeout=120_000)


def open_image(page: Page, name: str) -> None:
    page.locator(f'#images button[data-id="{name}"]').click()
    expect(page.locator("#title")).to_have_text(name, timeout=120_000)
    ready(page)


def drag(page: Page, places: list[Any]) -> None:
    """With the left button from place to place, in pixels of the window."""
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=3)
    page.mouse.up()
    ready(page)


def box(page: Page, low: Voxel, high: Voxel) -> None:
    """From voxel to voxel of the slice that is shown alone."""
    page.keyboard.press("b")
    drag(page, [at(page, low), at(page, high)])


def view(page: Page) -> str:
    """Name of the plane that is shown."""
    return str(page.locator("#views [aria-pressed=true]").get_attribute("data-view"))


def window(page: Page) -> tuple[float, float]:
    """Values shown black and white."""
    described = page.locator("#image").get_attribute("aria-label") or ""
    found = re.search(r"black at (\S+), white at (\S+)$", described)
    assert found, described
    return float(found[1]), float(found[2])


def at(page: Page, voxel: Voxel) -> list[float]:
    """Pixels of the window where the page tells a voxel of the slice that is shown alone."""
    place: list[float] = page.evaluate(_PLACE, list(voxel))["at"]
    return place


def go_to(page: Page, voxel: Voxel) -> None:
    """Show the slice of a voxel in the plane that is shown alone."""
    (across,) = {0, 1, 2} - set(page.evaluate(_PLACE, _middle(page))["axes"])
    steps = voxel[across] - _middle(page)[across]
    if not steps:
        return
    before = _middle(page)[across]
    page.keyboard.press("ArrowUp")
    up = _middle(page)[across] - before or (-1 if steps > 0 else 1)  # none: it was the last one
    steps = voxel[across] - _middle(page)[across]
    for _ in range(abs(steps)):
        page.keyboard.press("ArrowUp" if steps * up > 0 else "ArrowDown")
    assert _middle(page)[across] == voxel[across]


def _middle(page: Page) -> list[int]:
    """The voxel that the page tells for the middle of the image."""
    box = page.locator("#overlay").bounding_box()
    assert box
    place = [box["x"] + box["width"] / 2, box["y"] + box["height"] / 2]
    voxel: list[int] = page.evaluate(_READ_ALL, [place])[0][:3]
    return voxel


def filled(page: Page) -> Labelled:
    """Labelled voxels as (i, j, k, value), as the server has them for this user.

    On the slice that is shown, the page must tell the same labels: for all voxels around what is labelled
    there, and for every fourth voxel of the rest.
    """
    image, labels, names = known(page)
    found = {(*map(int, one), int(labels[tuple(one)])) for one in np.argwhere(labels)}
    told = page.evaluate(_PLACE, _middle(page))
    across = ({0, 1, 2} - set(told["axes"])).pop()
    index = _middle(page)[across]
    first, last = [0, 0, 0], [n - 1 for n in image["shape"]]
    first[across] = last[across] = index
    low, high = (np.array(page.evaluate(_PLACE, corner)["at"]) for corner in (first, last))
    wanted = _looked_at(labels, told["axes"], across, index)
    edges = np.array(last)[told["axes"]]
    places = low + wanted[:, told["axes"]] / np.maximum(edges, 1) * (high - low)
    shown = page.evaluate(_READ_ALL, places.tolist())
    assert shown == [[*map(int, one), names.get(int(labels[tuple(one)]), "")] for one in wanted]
    return found


def known(page: Page) -> tuple[dict[str, Any], np.ndarray, dict[int, str]]:
    """The open image, its label map (I, J, K) on the server, and the names of the values."""
    name = page.locator("#images [aria-current]").get_attribute("data-id")
    base = f"{page.url.rstrip('/')}/api/images/{name}"
    image = page.request.get(base).json()
    work = page.request.get(f"{base}/work", params={"client": page.locator("#client").input_value()}).json()
    labels = np.zeros(image["shape"], np.uint8)
    for change in work["changes"]:
        (i0, i1), (j0, j1) = change["i"], change["j"]
        values = np.frombuffer(zlib.decompress(base64.b64decode(change["data"])), np.uint8)
        labels[i0:i1, j0:j1, change["k"]] = values.reshape(j1 - j0, i1 - i0).T
    return image, labels, {value: label for label, value in work["labels"].items()}


def _looked_at(labels: np.ndarray, axes: list[int], across: int, index: int) -> np.ndarray:
    """Voxels (N, 3) of a slice: all near labelled ones, and every fourth along both axes."""
    chosen = np.zeros(labels.shape, bool)
    chosen[tuple(slice(None, None, 4) if axis != across else index for axis in range(3))] = True
    on_slice = np.argwhere(labels)
    on_slice = on_slice[on_slice[:, across] == index]
    if len(on_slice):
        near = [slice(index, index + 1)] * 3
        for axis in axes:
            near[axis] = slice(max(0, on_slice[:, axis].min() - 3), on_slice[:, axis].max() + 4)
        chosen[tuple(near)] = True
    return np.argwhere(chosen)


def paint(page: Page, label: str, *voxels: tuple[int, int, int]) -> None:
    """Dots of the brush in a label's colour."""
    page.locator("#label").fill(label)
    page.keyboard.press("Enter")
    page.keyboard.press("r")
    for voxel in voxels:
        page.mouse.click(*at(page, voxel))
        ready(page)
