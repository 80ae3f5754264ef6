/** One plane of the image on the screen. Places on the screen are CSS pixels of the canvas. */
import { IN_PLANE, PLANES } from "./grid.js";

/**
 * @typedef {object} Placement where NiiVue has put a plane
 * @property {number[]} rectangle left, top, width and height on the screen
 * @property {number[]} low mm of the plane at the left lower corner
 * @property {number[]} extent mm along width and height; negative where the axis runs the other way
 * @property {number[]} origin mm of the corner of the volume, along all three shown axes
 * @property {number[]} edges mm of a voxel along all three shown axes
 */
export class Tile {
  /**
   * @param {import("../types.js").Plane} plane
   * @param {number} index of the slice, along the shown axis across the plane
   * @param {import("./grid.js").Grid} grid
   * @param {Placement} placement
   */
  constructor(plane, index, grid, { rectangle, low, extent, origin, edges }) {
    const [left, top, width, height] = rectangle;
    this.left = left;
    this.top = top;
    this.width = width;
    this.height = height;
    this.plane = plane;
    this.index = index;
    this.grid = grid;
    this.depth = PLANES.indexOf(plane);
    this.axes = IN_PLANE[this.depth];
    this.low = low;
    this.extent = extent;
    this.origin = this.axes.map((axis) => origin[axis]);
    this.scale = this.axes.map((axis) => edges[axis]); // mm per voxel
  }

  /** Number of slices of the plane. */
  get count() {
    return this.grid.shown[this.depth];
  }

  /**
   * @param {number} x
   * @param {number} y
   */
  holds(x, y) {
    return x >= this.left && y >= this.top && x < this.left + this.width && y < this.top + this.height;
  }

  /**
   * Parts of the width from the left and of the height from below.
   * @param {number} x
   * @param {number} y
   */
  fraction(x, y) {
    return [(x - this.left) / this.width, 1 - (y - this.top) / this.height];
  }

  /**
   * Place on the screen of continuous shown coordinates along the two axes of the plane.
   * @param {number[]} coordinates
   * @returns {[number, number]}
   */
  toScreen(coordinates) {
    const [u, v] = coordinates.map(
      (value, at) => ((value + 0.5) * this.scale[at] + this.origin[at] - this.low[at]) / this.extent[at],
    );
    return [this.left + u * this.width, this.top + (1 - v) * this.height];
  }

  /**
   * Continuous shown coordinates along the two axes of the plane.
   * @param {number} x
   * @param {number} y
   */
  toShown(x, y) {
    return this.fraction(x, y).map(
      (part, at) => (this.low[at] + part * this.extent[at] - this.origin[at]) / this.scale[at] - 0.5,
    );
  }

  /**
   * The stored voxel there, whether the image has it or not.
   * @param {number} x
   * @param {number} y
   */
  toStored(x, y) {
    return this.storedAt(this.toShown(x, y).map(Math.round));
  }

  /**
   * The stored voxel of shown coordinates along the two axes of the plane.
   * @param {number[]} coordinates
   */
  storedAt(coordinates) {
    const shown = [0, 0, 0];
    this.axes.forEach((axis, at) => (shown[axis] = coordinates[at]));
    shown[this.depth] = this.index;
    return this.grid.toStored(shown);
  }

  /**
   * Pixels on the screen of a length in mm, along the two axes of the plane.
   * @param {number} mm
   */
  pixels(mm) {
    return [this.width, this.height].map((size, at) => (mm / Math.abs(this.extent[at])) * size);
  }
}

/**
 * Where a stored voxel lies on the screen, in CSS pixels.
 * @param {Tile} tile
 * @param {import("../types.js").Voxel} voxel
 */
export function onScreen(tile, voxel) {
  const shown = tile.grid.toShown(voxel);
  return tile.toScreen(tile.axes.map((axis) => shown[axis]));
}
