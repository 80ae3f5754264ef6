/** Places on the screen as voxels of a slice. */

/**
 * @typedef {import("../image/tile.js").Tile} Tile
 * @typedef {import("../types.js").Voxel} Voxel
 */

/**
 * The stored voxel there, or the nearest one of the slice.
 * @param {Tile} tile
 * @param {number} x
 * @param {number} y
 */
export const nearestVoxel = (tile, x, y) => tile.grid.clamped(tile.toStored(x, y));

/**
 * Stored voxels within a disc around a place on the screen; at least the one below it, if the image has it.
 * @param {Tile} tile
 * @param {number} x
 * @param {number} y
 * @param {number} size diameter, in the smaller voxel edge
 * @returns {Voxel[]}
 */
export function disc(tile, x, y, size) {
  const [column, row] = tile.toShown(x, y).map(Math.round);
  const radius = (size / 2) * Math.min(...tile.scale); // mm
  const reach = tile.scale.map((edge) => Math.floor(radius / edge));
  const voxels = [];
  for (let b = -reach[1]; b <= reach[1]; b++) {
    for (let a = -reach[0]; a <= reach[0]; a++) {
      if (Math.hypot(a * tile.scale[0], b * tile.scale[1]) > radius && (a || b)) continue;
      const voxel = tile.storedAt([column + a, row + b]);
      if (tile.grid.contains(voxel)) voxels.push(voxel);
    }
  }
  return voxels;
}

/**
 * Places from one to another, without the first, so close that discs around them leave no gap.
 * @param {number[]} from
 * @param {number[]} to
 */
export function between(from, to) {
  const steps = Math.max(1, Math.ceil(Math.hypot(to[0] - from[0], to[1] - from[1]) / 2));
  return Array.from({ length: steps }, (_, n) =>
    [0, 1].map((at) => from[at] + ((to[at] - from[at]) * (n + 1)) / steps),
  );
}

/**
 * Points without those that repeat the one before.
 * @param {number[][]} points
 */
export const withoutRepetitions = (points) =>
  points.filter((point, at) => !at || String(point) !== String(points[at - 1]));
