/** The sides of a box on the screen, which can be dragged in each plane that shows the box. */

/** @typedef {import("../image/tile.js").Tile} Tile */

const NEAR = 7; // pixels around a side that belong to it

/**
 * A box on the screen; null if the slice does not show it.
 * @param {Tile} tile
 * @param {number[]} box stored [i0, i1, j0, j1, k0, k1]
 */
export function boxOnScreen(tile, box) {
  const corners = [0, 1].map((end) => tile.grid.toShown([box[end], box[2 + end], box[4 + end]]));
  const low = corners[0].map((value, axis) => Math.min(value, corners[1][axis]));
  const high = corners[0].map((value, axis) => Math.max(value, corners[1][axis]));
  if (low[tile.depth] > tile.index || tile.index > high[tile.depth]) return null;
  const ends = [
    tile.toScreen(tile.axes.map((axis) => low[axis] - 0.5)),
    tile.toScreen(tile.axes.map((axis) => high[axis] + 0.5)),
  ];
  return { low, high, ends };
}

/**
 * The sides of a box that a place on the screen is near to: for each of the two axes of the plane 0 for the lower side,
 * 1 for the upper one, or null. Null if it is near to none.
 * @param {Tile} tile
 * @param {number[]} box
 * @param {number} x
 * @param {number} y
 * @returns {(0 | 1 | null)[] | null}
 */
export function sideAt(tile, box, x, y) {
  const shown = boxOnScreen(tile, box);
  if (!shown) return null;
  const place = [x, y];
  const { ends } = shown;
  const isWithin = [0, 1].every((at) => {
    const [from, to] = [ends[0][at], ends[1][at]].sort((a, b) => a - b);
    return place[at] >= from - NEAR && place[at] <= to + NEAR;
  });
  if (!isWithin) return null;
  const sides = [0, 1].map((at) => {
    const far = ends.map((end) => Math.abs(place[at] - end[at]));
    if (Math.min(...far) > NEAR) return null;
    return far[0] < far[1] ? 0 : 1;
  });
  return sides.every((side) => side === null) ? null : /** @type {(0 | 1 | null)[]} */ (sides);
}

/**
 * The box with these sides moved to a place on the screen.
 * @param {Tile} tile
 * @param {number[]} box
 * @param {(0 | 1 | null)[]} sides
 * @param {number} x
 * @param {number} y
 */
export function dragged(tile, box, sides, x, y) {
  const { low, high } = boxOnScreen(tile, box);
  const to = tile.toShown(x, y);
  tile.axes.forEach((axis, at) => {
    const value = Math.min(tile.grid.shown[axis] - 1, Math.max(0, Math.round(to[at])));
    if (sides[at] === 0) low[axis] = Math.min(value, high[axis]);
    if (sides[at] === 1) high[axis] = Math.max(value, low[axis]);
  });
  const ends = [tile.grid.toStored(low), tile.grid.toStored(high)];
  return [0, 1, 2].flatMap((axis) => ends.map((end) => end[axis]).sort((a, b) => a - b));
}
