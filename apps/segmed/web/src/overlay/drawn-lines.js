/** Scribbles and lassos of the open object, which stay in view like its clicks. */
import { SLICES, axisAcross, inPlane } from "../image/planes.js";
import { onScreen } from "../image/tile.js";
import { COLOURS, dot, line } from "./pen.js";

/**
 * @typedef {import("../types.js").DrawnLine} DrawnLine
 * @typedef {import("../types.js").Prompt} Prompt
 */

const DASH = [6, 4]; // of a line beside the object, in pixels
const MARK = 5; // radius of the sign at the start of a scribble, in pixels

/**
 * The lines of a prompt that is on its way, as the answer will have them.
 * @param {Prompt} prompt
 * @param {import("../types.js").ImageMeta} meta
 * @returns {DrawnLine[]}
 */
export function linesOf({ scribbles = [], lasso, plane }, meta) {
  const axis = plane ? meta.planes[plane] : SLICES;
  const lines = scribbles.map(({ k, points, foreground }) => ({ axis, k, points, foreground, closed: false }));
  return lasso ? [...lines, { axis, k: lasso.k, points: lasso.points, foreground: true, closed: true }] : lines;
}

/**
 * Draw the lines that lie on the shown slice.
 * @param {CanvasRenderingContext2D} pen
 * @param {import("../image/tile.js").Tile} tile
 * @param {DrawnLine[]} lines
 */
export function drawLines(pen, tile, lines) {
  const across = axisAcross(tile.grid, tile.plane);
  for (const { axis, k, points, foreground, closed } of lines) {
    if (axis !== across) continue;
    const [p, q] = inPlane(axis);
    const places = points.map((point) => {
      const voxel = [k, k, k];
      [voxel[p], voxel[q]] = point;
      return voxel;
    });
    if (tile.grid.toShown(places[0])[tile.depth] !== tile.index) continue;
    const onTile = places.map((voxel) => onScreen(tile, voxel));
    pen.lineJoin = pen.lineCap = "round";
    pen.beginPath();
    onTile.forEach(([x, y]) => pen.lineTo(x, y));
    if (closed) pen.closePath();
    pen.setLineDash(foreground ? [] : DASH);
    line(pen, closed ? COLOURS.region : foreground ? COLOURS.positive : COLOURS.negative, 1.5);
    pen.setLineDash([]);
    if (!closed) dot(pen, onTile[0], MARK, foreground);
  }
}
