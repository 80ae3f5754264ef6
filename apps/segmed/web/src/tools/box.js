/**
 * A box around the object, by dragging from corner to corner. Turning the wheel while dragging draws it over several
 * slices; the sides of the open box can be dragged in all planes.
 */
import { axisAcross, inPlane, promptPlane } from "../image/planes.js";
import { COLOURS, line } from "../overlay/pen.js";
import { boxOnScreen, dragged, sideAt } from "./box-handles.js";
import { nearestVoxel } from "./geometry.js";
import { Tool } from "./tool.js";

export class BoxTool extends Tool {
  name = "box";
  title = "Draw a box around the object";
  key = "b";

  /**
   * @param {import("../image/viewer.js").Viewer} viewer
   * @param {import("./tool.js").ToolSettings} settings
   * @param {() => import("../types.js").Prompt} open the prompt of the open object
   */
  constructor(viewer, settings, open = () => ({})) {
    super(viewer, settings);
    this.open = open;
  }

  /** @type {Tool["press"]} */
  press(tile, x, y) {
    this.tile = tile;
    this.from = this.to = [x, y];
    this.first = nearestVoxel(tile, x, y);
    const { box } = this.open();
    this.side = box ? sideAt(tile, box, x, y) : null;
    this.box = box;
  }

  /** @type {Tool["move"]} */
  move(x, y) {
    this.to = [x, y];
    if (this.side) this.box = dragged(this.tile, this.box, this.side, x, y);
  }

  /** @type {Tool["release"]} */
  release(x, y) {
    return this.side ? this.#resized() : this.#drawn(x, y);
  }

  #resized() {
    const { box, axis } = this.open();
    if (String(this.box) === String(box)) return {};
    return { prompt: { box: this.box, ...promptPlane(this.viewer.meta, axis ?? 2) } };
  }

  /**
   * @param {number} x
   * @param {number} y
   */
  #drawn(x, y) {
    const { grid, plane } = this.tile;
    const across = axisAcross(grid, plane);
    const last = nearestVoxel(this.tile, x, y);
    last[across] = this.#sliceNow()[across];
    const ranges = [0, 1, 2].map((axis) => [this.first[axis], last[axis]].sort((a, b) => a - b));
    if (inPlane(across).some((axis) => ranges[axis][1] - ranges[axis][0] < 1)) {
      return { hint: "Hold the mouse button and draw the box around the object." };
    }
    return { prompt: { box: ranges.flat(), ...promptPlane(this.viewer.meta, across) } };
  }

  /** A stored voxel of the slice that is shown now, which the wheel may have changed. */
  #sliceNow() {
    const { grid, plane, depth } = this.tile;
    const shown = [0, 0, 0];
    shown[depth] = this.viewer.slice(plane);
    return grid.toStored(shown);
  }

  /** @type {Tool["draw"]} */
  draw(pen) {
    const ends = this.side ? boxOnScreen(this.tile, this.box)?.ends : [this.from, this.to];
    if (!ends) return;
    pen.beginPath();
    pen.rect(ends[0][0], ends[0][1], ends[1][0] - ends[0][0], ends[1][1] - ends[0][1]);
    line(pen, COLOURS.region, 1.5);
  }
}
