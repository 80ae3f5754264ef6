/** Tools that change what is shown: crosshair, window, pan. The last two belong to other buttons of the mouse. */
import { Tool } from "./tool.js";

export class CrosshairTool extends Tool {
  name = "move";
  title = "Move the crosshair";
  key = "v";

  /** @type {Tool["press"]} */
  press(tile) {
    this.tile = tile;
  }

  /** @type {Tool["move"]} */
  move(x, y) {
    const voxel = this.tile.toStored(x, y);
    if (this.tile.grid.contains(voxel)) this.viewer.goTo(voxel);
  }

  /** @type {Tool["release"]} */
  release(x, y) {
    this.move(x, y);
  }
}

/** Up and down changes brightness, left and right contrast. */
export class WindowTool extends Tool {
  static PER_WINDOW = 300; // pixels that shift the level by one width
  static PER_DOUBLING = 150; // pixels that double the width

  /** @type {Tool["press"]} */
  press(tile, x, y) {
    this.from = [x, y];
    this.before = this.viewer.intensities.window;
  }

  /** @type {Tool["move"]} */
  move(x, y) {
    const [low, high] = this.before;
    const width = high - low;
    const level = (low + high) / 2 + ((y - this.from[1]) / WindowTool.PER_WINDOW) * width;
    const wide = width * 2 ** ((x - this.from[0]) / WindowTool.PER_DOUBLING);
    this.viewer.intensities.window = [level - wide / 2, level + wide / 2];
  }
}

export class PanTool extends Tool {
  /** @type {Tool["press"]} */
  press(tile, x, y) {
    this.tile = tile;
    this.last = [x, y];
  }

  /** @type {Tool["move"]} */
  move(x, y) {
    this.viewer.pan(this.tile, x - this.last[0], y - this.last[1]);
    this.last = [x, y];
  }
}
