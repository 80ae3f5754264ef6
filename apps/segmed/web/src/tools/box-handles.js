/** A box on the screen, and the handles by which its sides are dragged in each plane that shows it. */

/** @typedef {import("../image/tile.js").Tile} Tile */

const NEAR = 8; // pixels around a handle that belong to it

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
 * The handles of a box, in the middles of its sides.
 * @param {[number, number][]} ends corners on the screen
 * @returns {{at: 0 | 1, end: 0 | 1, place: [number, number]}[]} axis of the plane, lower or upper side, place
 */
export function handles(ends) {
  const middle = [0, 1].map((at) => (ends[0][at] + ends[1][at]) / 2);
  return /** @type {(0 | 1)[]} */ ([0, 1]).flatMap((end) => [
    { at: /** @type {0} */ (0), end, place: /** @type {[number, number]} */ ([ends[end][0], middle[1]]) },
    { at: /** @type {1} */ (1), end, place: /** @type {[number, number]} */ ([middle[0], ends[end][1]]) },
  ]);
}

/**
 * The side of a box whose handle is at a place on the screen; null if there is none, so that another box can begin at a
 * corner of this one.
 * @param {Tile} tile
 * @param {number[]} box
 * @param {number} x
 * @param {number} y
 */
export function sideAt(tile, box, x, y) {
  const shown = boxOnScreen(tile, box);
  const far = (shown ? handles(shown.ends) : [])
    .map(({ at, end, place }) => ({ at, end, distance: Math.hypot(place[0] - x, place[1] - y) }))
    .filter(({ distance }) => distance <= NEAR)
    .sort((a, b) => a.distance - b.distance);
  return far.length ? { at: far[0].at, end: far[0].end } : null;
}

/**
 * The box with a side moved to a place on the screen, but not beyond the other side.
 * @param {Tile} tile
 * @param {number[]} box
 * @param {{at: 0 | 1, end: 0 | 1}} side
 * @param {number} x
 * @param {number} y
 */
export function dragged(tile, box, { at, end }, x, y) {
  const { low, high } = boxOnScreen(tile, box);
  const axis = tile.axes[at];
  const value = Math.min(tile.grid.shown[axis] - 1, Math.max(0, Math.round(tile.toShown(x, y)[at])));
  if (end) high[axis] = Math.max(value, low[axis]);
  else low[axis] = Math.min(value, high[axis]);
  const ends = [tile.grid.toStored(low), tile.grid.toStored(high)];
  return [0, 1, 2].flatMap((stored) => ends.map((voxel) => voxel[stored]).sort((a, b) => a - b));
}
