/** The outlines of the labels on the planes that are shown, each in its colour and its pattern. */
import { IN_PLANE } from "../image/grid.js";
import { contours } from "./contours.js";

/**
 * @typedef {import("../image/tile.js").Tile} Tile
 * @typedef {import("../types.js").Plane} Plane
 */

const WIDTH = 2; // pixels

export class LabelOutlines {
  /** @type {Map<Plane, {key: string, lines: Map<number, number[][]>}>} those that were drawn last */
  #known = new Map();

  /** @param {import("../image/viewer.js").Viewer} viewer */
  constructor(viewer) {
    this.viewer = viewer;
  }

  /**
   * @param {CanvasRenderingContext2D} pen
   * @param {Tile} tile
   */
  draw(pen, tile) {
    const { labels, style } = this.viewer;
    if (!labels?.isShown) return;
    pen.lineWidth = WIDTH;
    pen.lineJoin = "round";
    for (const [value, lines] of this.#lines(tile)) {
      if (style.hidden.has(value)) continue;
      pen.beginPath();
      for (const line of lines) {
        for (let at = 0; at < line.length; at += 2) {
          const place = tile.toScreen([line[at] - 0.5, line[at + 1] - 0.5]);
          if (at) pen.lineTo(...place);
          else pen.moveTo(...place);
        }
        pen.closePath();
      }
      pen.strokeStyle = style.hex(value);
      pen.setLineDash(style.dash(value));
      pen.stroke();
    }
    pen.setLineDash([]);
  }

  /** @param {Tile} tile */
  #lines(tile) {
    const { labels } = this.viewer;
    const key = `${tile.index} ${labels.version}`;
    if (this.#known.get(tile.plane)?.key !== key) {
      const [width, height] = IN_PLANE[tile.depth].map((axis) => tile.grid.shown[axis]);
      this.#known.set(tile.plane, { key, lines: contours(labels.plane(tile.depth, tile.index), width, height) });
    }
    return this.#known.get(tile.plane).lines;
  }
}
