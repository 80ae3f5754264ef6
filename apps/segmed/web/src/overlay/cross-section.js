/** Masks that travel as rectangles of stored slices, cut along any plane, and their outlines on the screen. */
import { SLICES, axisAcross, inPlane } from "../image/planes.js";
import { onScreen } from "../image/tile.js";
import { contours } from "./contours.js";

/**
 * @typedef {import("../types.js").LabelRectangle} LabelRectangle
 *
 * @typedef {object} Section a mask on one slice, as a rectangle along the two stored axes of the plane
 * @property {number[]} low first voxel along them
 * @property {number} width
 * @property {number} height
 * @property {Uint8Array} values 1 in the mask, rows along the first axis
 */

/**
 * The mask on a slice; null if there is nothing of it.
 * @param {LabelRectangle[]} masks on stored slices; any value above 0 belongs to the mask
 * @param {number} across stored axis across the slice
 * @param {number} index of the slice along it
 * @returns {Section | null}
 */
export function crossSection(masks, across, index) {
  const [p, q] = inPlane(across);
  const cut = masks
    .map((mask) => ({ mask, ranges: [mask.i, mask.j, [mask.k, mask.k + 1]] }))
    .filter(({ ranges }) => ranges[across][0] <= index && index < ranges[across][1]);
  if (!cut.length) return null;
  const low = [p, q].map((axis) => Math.min(...cut.map(({ ranges }) => ranges[axis][0])));
  const [width, height] = [p, q].map((axis, at) => Math.max(...cut.map(({ ranges }) => ranges[axis][1])) - low[at]);
  const values = new Uint8Array(width * height);
  const voxel = [index, index, index];
  for (const { mask, ranges } of cut) {
    const columns = mask.i[1] - mask.i[0];
    for (let y = ranges[q][0]; y < ranges[q][1]; y++) {
      for (let x = ranges[p][0]; x < ranges[p][1]; x++) {
        [voxel[p], voxel[q]] = [x, y];
        const value = mask.values[voxel[0] - mask.i[0] + (voxel[1] - mask.j[0]) * columns];
        if (value) values[x - low[0] + (y - low[1]) * width] = 1;
      }
    }
  }
  return { low, width, height, values };
}

/** Outlines of one mask; those that were asked for last are kept. */
export class MaskOutline {
  /** @type {Map<number, {index: number, lines: number[][][]}>} by the axis across */
  #known = new Map();

  /** @param {LabelRectangle[]} masks on stored slices */
  constructor(masks) {
    this.masks = masks;
  }

  /**
   * Closed lines in stored voxels of a slice, whose squares reach from -0.5 to 0.5 around their middle.
   * @param {number} across
   * @param {number} index
   */
  lines(across, index) {
    const known = this.#known.get(across);
    if (known?.index === index) return known.lines;
    const section = crossSection(this.masks, across, index);
    const found = section ? (contours(section.values, section.width, section.height).get(1) ?? []) : [];
    const lines = found.map((line) => {
      const places = [];
      for (let at = 0; at < line.length; at += 2) {
        places.push([line[at] + section.low[0] - 0.5, line[at + 1] + section.low[1] - 0.5]);
      }
      return places;
    });
    this.#known.set(across, { index, lines });
    return lines;
  }

  /**
   * Add the outline on the shown slice to the path of a pen; whether there is any.
   * @param {CanvasRenderingContext2D} pen
   * @param {import("../image/tile.js").Tile} tile
   */
  trace(pen, tile) {
    const across = axisAcross(tile.grid, tile.plane);
    const index = tile.storedAt([0, 0])[across];
    const [p, q] = inPlane(across);
    const lines = this.lines(across, index);
    for (const line of lines) {
      line.forEach((point, at) => {
        const voxel = [index, index, index];
        [voxel[p], voxel[q]] = point;
        if (at) pen.lineTo(...onScreen(tile, voxel));
        else pen.moveTo(...onScreen(tile, voxel));
      });
      pen.closePath();
    }
    return lines.length > 0;
  }

  /** Number of voxels. */
  get voxels() {
    return this.masks.reduce((sum, { values }) => sum + values.reduce((part, value) => part + (value ? 1 : 0), 0), 0);
  }
}

/**
 * A mask on one stored slice.
 * @param {LabelRectangle} mask
 */
export const outlineOf = (mask) => new MaskOutline([{ ...mask, axis: SLICES }]);
