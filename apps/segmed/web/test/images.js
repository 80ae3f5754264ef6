/** Small images for the tests: how they are stored, and where a plane of them lies on the screen. */
import { Grid, PLANES } from "../src/image/grid.js";
import { Tile } from "../src/image/tile.js";

export const SHAPE = [5, 4, 3];

/** All 48 ways in which stored axes can be the shown ones. */
export const ORDERS = [
  [1, 2, 3],
  [1, 3, 2],
  [2, 1, 3],
  [2, 3, 1],
  [3, 1, 2],
  [3, 2, 1],
].flatMap((axes) =>
  [0, 1, 2, 3, 4, 5, 6, 7].map((signs) => axes.map((axis, at) => ((signs >> at) & 1 ? -axis : axis))),
);

/**
 * Every voxel of a grid.
 * @param {Grid} grid
 */
export function voxels({ shape: [columns, rows, slices] }) {
  const all = [];
  for (let k = 0; k < slices; k++) {
    for (let j = 0; j < rows; j++) for (let i = 0; i < columns; i++) all.push([i, j, k]);
  }
  return all;
}

/**
 * A plane at 10 pixels per mm, from (20, 30) on the screen; voxels are 2 mm wide along x, 1 mm along y and 3 mm along
 * z. As radiologists see it, x runs to the left.
 * @param {Grid} grid
 * @param {import("../src/types.js").Plane} plane
 * @param {number} index of the slice
 */
export function tileOf(grid, plane = "axial", index = 1) {
  const edges = [2, 1, 3];
  const axes = [0, 1, 2].filter((axis) => axis !== PLANES.indexOf(plane));
  const extent = axes.map((axis) => grid.shown[axis] * edges[axis]);
  return new Tile(plane, index, grid, {
    rectangle: [20, 30, extent[0] * 10, extent[1] * 10],
    low: [extent[0], 0],
    extent: [-extent[0], extent[1]],
    origin: [0, 0, 0],
    edges,
  });
}

/** An image that is stored as it is shown. */
export const plainTile = () => tileOf(new Grid(SHAPE, [1, 2, 3]));
