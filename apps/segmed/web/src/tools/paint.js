/** Painting and erasing by hand, on the label map of the page at once; the server is told at the end of the stroke. */
import { between, disc } from "./geometry.js";
import { Tool } from "./tool.js";

class PaintTool extends Tool {
  hasSize = true;
  hasCircle = true;
  erases = false;

  /**
   * @param {import("../image/viewer.js").Viewer} viewer
   * @param {import("./tool.js").ToolSettings} settings
   * @param {() => number} labelValue what the brush paints
   */
  constructor(viewer, settings, labelValue) {
    super(viewer, settings);
    this.labelValue = labelValue;
  }

  /** @type {Tool["press"]} */
  press(tile, x, y) {
    this.tile = tile;
    /** @type {Map<number, number[]>} voxels by their place in the label map */
    this.painted = new Map();
    this.value = this.erases ? 0 : this.labelValue();
    if (this.viewer.style.locked.has(this.value)) return { hint: "This label is locked. Unlock it to paint it." };
    this.last = [x, y];
    this.move(x, y);
    return undefined;
  }

  /** @type {Tool["move"]} */
  move(x, y) {
    const fresh = [];
    for (const place of between(this.last, [x, y])) {
      for (const voxel of disc(this.tile, place[0], place[1], this.settings.size)) {
        const at = this.tile.grid.offset(voxel[0], voxel[1], voxel[2]);
        if (this.painted.has(at) || this.viewer.style.locked.has(this.viewer.labels.at(voxel))) continue;
        this.painted.set(at, voxel);
        fresh.push(voxel);
      }
    }
    this.last = [x, y];
    if (fresh.length) this.viewer.labels.paint(fresh, this.value);
  }

  /** @type {Tool["release"]} */
  release() {
    return this.painted.size ? { painted: [...this.painted.values()], erased: this.erases } : {};
  }
}

export class BrushTool extends PaintTool {
  name = "brush";
  title = "Paint by hand";
  key = "r";
}

export class EraserTool extends PaintTool {
  name = "eraser";
  title = "Erase by hand";
  key = "e";
  erases = true;
}
