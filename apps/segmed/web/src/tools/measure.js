/** Distances in mm, drawn from place to place on a slice. */
import { COLOURS, line } from "../overlay/pen.js";
import { Tool } from "./tool.js";

/**
 * @typedef {import("../image/tile.js").Tile} Tile
 *
 * @typedef {object} Measure
 * @property {import("../types.js").Plane} plane
 * @property {number} index of the slice
 * @property {number[]} from continuous shown coordinates along the axes of the plane
 * @property {number[]} to
 */

const SHORTEST = 4; // pixels; less is a slip of the hand

export class MeasureTool extends Tool {
  name = "measure";
  title = "Measure a distance";
  key = "m";
  /** @type {Measure[]} of the open image */
  measures = [];

  /** @type {Tool["press"]} */
  press(tile, x, y) {
    this.tile = tile;
    this.from = this.to = [x, y];
  }

  /** @type {Tool["move"]} */
  move(x, y) {
    this.to = [x, y];
  }

  /** @type {Tool["release"]} */
  release(x, y) {
    if (Math.hypot(x - this.from[0], y - this.from[1]) < SHORTEST) {
      return { hint: "Hold the mouse button and draw along the distance. Delete removes the last one." };
    }
    const { plane, index } = this.tile;
    const [from, to] = [this.from, [x, y]].map((place) => this.tile.toShown(place[0], place[1]));
    this.measures.push({ plane, index, from, to });
    return {};
  }

  /** Take the last one away; whether there was one. */
  removeLast() {
    return Boolean(this.measures.pop());
  }

  /** @type {Tool["draw"]} */
  draw(pen) {
    const [from, to] = [this.from, this.to].map((place) => this.tile.toShown(place[0], place[1]));
    drawMeasure(pen, this.tile, from, to);
  }

  /**
   * Draw the distances of a plane.
   * @param {CanvasRenderingContext2D} pen
   * @param {Tile} tile
   */
  drawAll(pen, tile) {
    for (const { plane, index, from, to } of this.measures) {
      if (plane === tile.plane && index === tile.index) drawMeasure(pen, tile, from, to);
    }
  }
}

/**
 * The length in mm of a line on a plane.
 * @param {{scale: number[]}} tile mm per voxel along the axes of the plane
 * @param {number[]} from continuous shown coordinates along these axes
 * @param {number[]} to
 */
export const distance = ({ scale }, from, to) => Math.hypot(...scale.map((edge, at) => (to[at] - from[at]) * edge));

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {Tile} tile
 * @param {number[]} from continuous shown coordinates
 * @param {number[]} to
 */
function drawMeasure(pen, tile, from, to) {
  const [[x0, y0], [x1, y1]] = [tile.toScreen(from), tile.toScreen(to)];
  const length = Math.hypot(x1 - x0, y1 - y0) || 1;
  const [acrossX, acrossY] = [(-5 * (y1 - y0)) / length, (5 * (x1 - x0)) / length];
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x1, y1);
  for (const [x, y] of [
    [x0, y0],
    [x1, y1],
  ]) {
    pen.moveTo(x - acrossX, y - acrossY);
    pen.lineTo(x + acrossX, y + acrossY);
  }
  line(pen, COLOURS.region, 1.5);
  const [right, left] = x1 > x0 ? [x1, x0] : [x0, x1];
  const text = `${distance(tile, from, to).toFixed(1)} mm`;
  pen.font = "600 13px system-ui, sans-serif";
  const width = pen.measureText(text).width;
  const outside = right + width + 12 > tile.left + tile.width ? left - width - 10 : right + 8;
  const y = (right === x1 ? y1 : y0) + 4;
  pen.fillStyle = "rgb(0 0 0 / 65%)";
  pen.fillRect(outside - 4, y - 13, width + 8, 18);
  pen.fillStyle = COLOURS.region;
  pen.fillText(text, outside, y);
}
