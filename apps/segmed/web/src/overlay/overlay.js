/** What lies over the image: prompts, the gesture being made, outlines of models that are compared. */
import { boxOnScreen, handles } from "../tools/box-handles.js";
import { onScreen } from "../image/tile.js";
import { drawLines } from "./drawn-lines.js";
import { LabelOutlines } from "./label-outlines.js";
import { COLOURS, dot, line, sign } from "./pen.js";

/**
 * @typedef {import("../image/tile.js").Tile} Tile
 * @typedef {import("../types.js").Prompt} Prompt
 * @typedef {import("../types.js").Voxel} Voxel
 *
 * @typedef {object} Outline of a mask
 * @property {string} colour
 * @property {import("./cross-section.js").MaskOutline} outline
 * @property {number[]} [dash] lengths of dashes and gaps in pixels
 * @property {string} [mark] a sign in the middle of the mask
 * @property {Voxel} [at] where that is
 *
 * @typedef {object} Cursor an ellipse around the mouse
 * @property {number} x
 * @property {number} y
 * @property {number[]} radius along x and y
 */

const HANDLE = 6; // pixels of a side of the squares by which a box is dragged
const MANY_POINTS = 12; // from here on they come from a scribble, and are drawn small

export class Overlay {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {import("../image/viewer.js").Viewer} viewer
   */
  constructor(canvas, viewer) {
    this.canvas = canvas;
    this.viewer = viewer;
    /** @type {Prompt[]} */
    this.prompts = [];
    /** @type {Outline[]} */
    this.outlines = [];
    /** @type {((pen: CanvasRenderingContext2D) => void) | null} draws what is being drawn */
    this.gesture = null;
    /** @type {Cursor | null} */
    this.cursor = null;
    this.labelOutlines = new LabelOutlines(viewer);
    /** @type {((pen: CanvasRenderingContext2D, tile: Tile) => void)[]} further parts of the page that draw on planes */
    this.layers = [];
    /** @type {((pen: CanvasRenderingContext2D) => void)[]} and those that draw above all planes */
    this.above = [];
  }

  draw() {
    const pen = this.#fresh();
    for (const tile of this.viewer.tiles()) {
      pen.save();
      pen.beginPath();
      pen.rect(tile.left, tile.top, tile.width, tile.height);
      pen.clip();
      this.labelOutlines.draw(pen, tile);
      this.#drawOutlines(pen, tile);
      for (const layer of this.layers) layer(pen, tile);
      for (const prompt of this.prompts) drawPrompt(pen, tile, prompt);
      drawCaption(pen, tile);
      pen.restore();
    }
    for (const draw of this.above) draw(pen);
    this.gesture?.(pen);
    if (this.cursor) {
      const { x, y, radius } = this.cursor;
      pen.beginPath();
      pen.ellipse(x, y, radius[0], radius[1], 0, 0, 2 * Math.PI);
      line(pen, "#fff", 1);
    }
  }

  /** A pen for the empty canvas, which draws in CSS pixels. */
  #fresh() {
    const scale = window.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (this.canvas.width !== Math.round(width * scale) || this.canvas.height !== Math.round(height * scale)) {
      this.canvas.width = Math.round(width * scale);
      this.canvas.height = Math.round(height * scale);
    }
    const pen = this.canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    return pen;
  }

  /**
   * @param {CanvasRenderingContext2D} pen
   * @param {Tile} tile
   */
  #drawOutlines(pen, tile) {
    for (const { colour, outline, dash = [], mark, at } of this.outlines) {
      pen.beginPath();
      if (!outline.trace(pen, tile)) continue;
      pen.lineWidth = 2;
      pen.strokeStyle = colour;
      pen.setLineDash(dash);
      pen.stroke();
      pen.setLineDash([]);
      if (mark && at && tile.grid.toShown(at)[tile.depth] === tile.index) sign(pen, mark, onScreen(tile, at));
    }
  }
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {Tile} tile
 * @param {Prompt} prompt
 */
function drawPrompt(pen, tile, { box, foreground = [], background = [], lines = [] }) {
  if (box) drawBox(pen, tile, box);
  drawLines(pen, tile, lines);
  for (const points of [foreground, background]) {
    const radius = points.length > MANY_POINTS ? 2 : 6;
    for (const point of points) {
      if (tile.grid.toShown(point)[tile.depth] !== tile.index) continue;
      dot(pen, onScreen(tile, point), radius, points === foreground);
    }
  }
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {Tile} tile
 * @param {number[]} box [i0, i1, j0, j1, k0, k1]
 */
function drawBox(pen, tile, box) {
  const shown = boxOnScreen(tile, box);
  if (!shown) return;
  const [from, to] = shown.ends;
  pen.beginPath();
  pen.rect(from[0], from[1], to[0] - from[0], to[1] - from[1]);
  line(pen, COLOURS.region, 1.5);
  pen.fillStyle = COLOURS.region;
  for (const { place } of handles(shown.ends)) {
    pen.fillRect(place[0] - HANDLE / 2, place[1] - HANDLE / 2, HANDLE, HANDLE);
  }
}

/**
 * Name of the plane and number of the slice.
 * @param {CanvasRenderingContext2D} pen
 * @param {Tile} tile
 */
function drawCaption(pen, tile) {
  if (tile.count === 1) return;
  const name = `${tile.plane[0].toUpperCase()}${tile.plane.slice(1)}`;
  const slice = `${tile.index + 1} / ${tile.count}`;
  pen.font = "12px system-ui, sans-serif";
  pen.fillStyle = "#9fb3c8";
  pen.shadowColor = "#000";
  pen.shadowBlur = 3;
  const words = [`${name} ${slice}`, slice, String(tile.index + 1)]; // as much as a narrow plane has room for
  const fits = words.find((one) => pen.measureText(one).width < tile.width - 16);
  pen.fillText(fits ?? "", tile.left + 8, tile.top + tile.height - 9);
  pen.shadowBlur = 0;
}
