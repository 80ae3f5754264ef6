/** Slices of the open box, and the slices between drawn ones that are to be filled. */
import { axisAcross, promptPlane, shownNumber, storedIndex } from "../image/planes.js";
import { find, findAll, input, onClick } from "./dom.js";

/**
 * @typedef {object} SlicesActions
 * @property {() => import("../types.js").Prompt} prompt of the open object
 * @property {(prompt: import("../types.js").Prompt) => void} ask the model
 * @property {(request: {plane?: import("../types.js").Plane, between: number[]}) => void} interpolate
 */

export class SlicesPanel {
  /**
   * @param {import("../image/viewer.js").Viewer} viewer
   * @param {SlicesActions} actions
   */
  constructor(viewer, actions) {
    this.viewer = viewer;
    this.actions = actions;
    for (const id of ["#box-from", "#box-to"]) input(id).addEventListener("change", () => this.#resize());
    onClick("#interpolate", () => this.#interpolate());
  }

  /** The open object or the image has changed. */
  show() {
    const { box, axis = 2 } = this.actions.prompt();
    const { grid } = this.viewer;
    const isShown = Boolean(grid) && !this.viewer.isFlat;
    find("#slices").hidden = !isShown;
    const ends = isShown && box ? [0, 1].map((end) => shownNumber(grid, axis, box[2 * axis + end])) : [];
    ends.sort((a, b) => a - b);
    for (const [at, id] of ["#box-from", "#box-to"].entries()) {
      input(id).disabled = !ends.length;
      input(id).value = ends.length ? String(ends[at]) : "";
    }
    if (!isShown) for (const one of findAll("#between-from, #between-to", HTMLInputElement)) one.value = "";
  }

  /** The box over other slices is another prompt. */
  #resize() {
    const { box, axis = 2 } = this.actions.prompt();
    if (!box) return;
    const { grid, meta } = this.viewer;
    const ends = ["#box-from", "#box-to"].map((id) => storedIndex(grid, axis, Number(input(id).value)));
    const changed = [...box];
    changed.splice(2 * axis, 2, Math.min(...ends), Math.max(...ends));
    if (String(changed) !== String(box)) this.actions.ask({ box: changed, ...promptPlane(meta, axis) });
    this.show();
  }

  #interpolate() {
    const { grid, meta, view, drawingPlane } = this.viewer;
    const axis = axisAcross(grid, view === "multi" ? drawingPlane : view);
    const fields = findAll("#between-from, #between-to", HTMLInputElement).map((one) => one.value);
    const between = fields.every(Boolean) ? fields.map((value) => storedIndex(grid, axis, Number(value))) : [];
    this.actions.interpolate({ ...promptPlane(meta, axis), between });
  }
}
