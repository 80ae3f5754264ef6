/** Lines drawn freely on a slice: scribbles in and beside the object, and lassos around it. */
import { axisAcross, inPlane, promptPlane } from "../image/planes.js";
import { COLOURS, dot, line } from "../overlay/pen.js";
import { nearestVoxel, withoutRepetitions } from "./geometry.js";
import { Tool } from "./tool.js";

class TraceTool extends Tool {
  /** @type {Tool["press"]} */
  press(tile, x, y) {
    this.tile = tile;
    /** @type {[number, number][]} */
    this.places = [[x, y]];
    this.across = axisAcross(tile.grid, tile.plane);
    this.k = tile.toStored(x, y)[this.across];
  }

  /** @type {Tool["move"]} */
  move(x, y) {
    this.places.push([x, y]);
  }

  /** The line on the two stored axes of the plane, without repetitions. */
  get points() {
    const [p, q] = inPlane(this.across);
    const voxels = this.places.map(([x, y]) => nearestVoxel(this.tile, x, y));
    return withoutRepetitions(voxels.map((voxel) => [voxel[p], voxel[q]]));
  }

  /** What a prompt says of the plane. */
  get plane() {
    return promptPlane(this.viewer.meta, this.across);
  }

  /**
   * The line as a path.
   * @param {CanvasRenderingContext2D} pen
   */
  trace(pen) {
    pen.lineJoin = pen.lineCap = "round";
    pen.beginPath();
    this.places.forEach(([x, y]) => pen.lineTo(x, y));
  }
}

class ScribbleTool extends TraceTool {
  foreground = true;
  hasSize = true;

  /** @type {Tool["press"]} */
  press(tile, x, y) {
    super.press(tile, x, y);
    const [pixels] = tile.pixels(this.settings.size * Math.min(...tile.scale));
    this.width = Math.max(2, pixels);
  }

  /** @type {Tool["release"]} */
  release() {
    const { k, foreground, points } = this;
    return { prompt: { scribbles: [{ k, foreground, points, width: this.settings.size }], ...this.plane } };
  }

  /** @type {Tool["draw"]} */
  draw(pen) {
    this.trace(pen);
    pen.globalAlpha = 0.6;
    pen.lineWidth = this.width;
    pen.strokeStyle = this.foreground ? COLOURS.positive : COLOURS.negative;
    pen.stroke();
    pen.globalAlpha = 1;
    dot(pen, this.places[0], 6, this.foreground);
  }
}

export class PositiveScribbleTool extends ScribbleTool {
  name = "scribble";
  title = "Scribble in the object";
  key = "s";
}

export class NegativeScribbleTool extends ScribbleTool {
  name = "unscribble";
  title = "Scribble beside the object";
  key = "d";
  foreground = false;
}

export class LassoTool extends TraceTool {
  name = "lasso";
  title = "Draw a lasso around the object";
  key = "l";

  /** @type {Tool["release"]} */
  release() {
    const { k, points } = this;
    if (points.length < 3) return { hint: "Hold the mouse button and draw around the object." };
    return { prompt: { lasso: { k, points }, ...this.plane } };
  }

  /** @type {Tool["draw"]} */
  draw(pen) {
    this.trace(pen);
    pen.closePath();
    line(pen, COLOURS.region, 1.5);
  }
}
