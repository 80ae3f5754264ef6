/**
 * What all tools of the mouse have in common. A press begins a gesture, moves go on with it, and the release ends it;
 * a gesture also ends as soon as one of the three returns a result, and can be given up at any time.
 *
 * @typedef {import("../image/tile.js").Tile} Tile
 * @typedef {import("../types.js").Prompt} Prompt
 * @typedef {import("../types.js").Voxel} Voxel
 *
 * @typedef {object} Result what has come of a gesture; empty if nothing has
 * @property {Prompt} [prompt] for the model
 * @property {Voxel[]} [painted] by hand, and whether they were erased
 * @property {boolean} [erased]
 * @property {string} [hint] what to do instead
 *
 * @typedef {object} ToolSettings that all tools share
 * @property {number} size of brush and scribbles, in the smaller voxel edge
 */
export class Tool {
  /** As in the document's `data-tool`; "" for those that have no button. */
  name = "";
  /** What it does. */
  title = "";
  /** On the keyboard. */
  key = "";
  /** Whether the size of the brush matters to it. */
  hasSize = false;
  /** Whether a circle of the size of the brush surrounds the mouse. */
  hasCircle = false;

  /**
   * @param {import("../image/viewer.js").Viewer} viewer
   * @param {ToolSettings} settings
   */
  constructor(viewer, settings) {
    this.viewer = viewer;
    this.settings = settings;
  }

  /* eslint-disable no-unused-vars -- for tools that need fewer handlers */
  /**
   * @param {Tile} tile the plane under the mouse
   * @param {number} x place on the screen
   * @param {number} y
   * @returns {Result | void}
   */
  press(tile, x, y) {}

  /**
   * @param {number} x
   * @param {number} y
   * @returns {Result | void}
   */
  move(x, y) {}

  /**
   * @param {number} x
   * @param {number} y
   * @returns {Result | void}
   */
  release(x, y) {}

  /**
   * Show the gesture so far.
   * @param {CanvasRenderingContext2D} pen
   */
  draw(pen) {}
  /* eslint-enable no-unused-vars */
}
