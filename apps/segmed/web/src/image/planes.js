/** The planes of an image as the server names them, and their axes among the stored ones. */
import { PLANES } from "./grid.js";

/**
 * @typedef {import("../types.js").ImageMeta} ImageMeta
 * @typedef {import("../types.js").Plane} Plane
 * @typedef {import("./grid.js").Grid} Grid
 */

/** The axis across the stored slices. */
export const SLICES = 2;

/**
 * The stored axis across a plane of the screen.
 * @param {Grid} grid
 * @param {Plane} plane
 */
export const axisAcross = (grid, plane) => Math.abs(grid.order[PLANES.indexOf(plane)]) - 1;

/**
 * What a prompt says of its plane: nothing for the stored slices.
 * @param {ImageMeta} meta
 * @param {number} axis stored axis across the plane
 * @returns {{plane?: Plane}}
 */
export function promptPlane(meta, axis) {
  if (axis === SLICES) return {};
  // by the axis, as the server may call an oblique plane by another name than the screen
  const found = Object.entries(meta.planes ?? {}).find(([, across]) => across === axis);
  return found ? { plane: /** @type {Plane} */ (found[0]) } : {};
}

/**
 * The two other stored axes, in their order.
 * @param {number} axis
 */
export const inPlane = (axis) => [0, 1, 2].filter((other) => other !== axis);

/**
 * Number of a slice as the screen shows it, from 1.
 * @param {Grid} grid
 * @param {number} axis stored
 * @param {number} index stored
 */
export function shownNumber(grid, axis, index) {
  const at = grid.order.findIndex((one) => Math.abs(one) === axis + 1);
  return (grid.order[at] > 0 ? index : grid.shown[at] - 1 - index) + 1;
}

/**
 * Stored index of a slice that the screen shows with a number from 1; the nearest one if there is none.
 * @param {Grid} grid
 * @param {number} axis stored
 * @param {number} number
 */
export function storedIndex(grid, axis, number) {
  const size = grid.shape[axis];
  const shown = Math.min(size, Math.max(1, Math.round(number))) - 1;
  const at = grid.order.findIndex((one) => Math.abs(one) === axis + 1);
  return grid.order[at] > 0 ? shown : size - 1 - shown;
}
