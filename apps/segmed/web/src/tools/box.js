/** A box around the object, by dragging from corner to corner. */
import { COLOURS, line } from "../overlay/pen.js";
import { nearestVoxel } from "./geometry.js";
import { Tool } from "./tool.js";

export class BoxTool extends Tool {
  name = "box";
  title = "Draw a box around the object";
  key = "b";
  inDrawingPlane = true;

  /** @type {Tool["press"]} */
  press(tile, x, y) {
    this.tile = tile;
    this.from = this.to = [x, y];
    this.first = nearestVoxel(tile, x, y);
  }

  /** @type {Tool["move"]} */
  move(x, y) {
    this.to = [x, y];
  }

  /** @type {Tool["release"]} */
  release(x, y) {
    const last = nearestVoxel(this.tile, x, y);
    const ranges = [0, 1].map((axis) => [this.first[axis], last[axis]].sort((a, b) => a - b));
    if (ranges.some(([low, high]) => high - low < 1)) {
      return { hint: "Hold the mouse button and draw the box around the object." };
    }
    return { prompt: { box: [...ranges[0], ...ranges[1], this.first[2], this.first[2]] } };
  }

  /** @type {Tool["draw"]} */
  draw(pen) {
    pen.beginPath();
    pen.rect(this.from[0], this.from[1], this.to[0] - this.from[0], this.to[1] - this.from[1]);
    line(pen, COLOURS.region, 1.5);
  }
}
