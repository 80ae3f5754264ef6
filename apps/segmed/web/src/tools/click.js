/** A click into the object or beside it. */
import { axisAcross, promptPlane } from "../image/planes.js";
import { Tool } from "./tool.js";

class ClickTool extends Tool {
  /** @type {"foreground" | "background"} */
  kind = "foreground";

  /** @type {Tool["press"]} */
  press(tile, x, y) {
    const voxel = tile.toStored(x, y);
    if (!tile.grid.contains(voxel)) return {};
    this.viewer.goTo(voxel);
    const across = axisAcross(tile.grid, tile.plane);
    return { prompt: { [this.kind]: [voxel], ...promptPlane(this.viewer.meta, across) } };
  }
}

export class PositiveClickTool extends ClickTool {
  name = "plus";
  title = "Click into the object";
  key = "p";
}

export class NegativeClickTool extends ClickTool {
  name = "minus";
  title = "Click beside the object";
  key = "n";
  /** @type {"background"} */
  kind = "background";
}
