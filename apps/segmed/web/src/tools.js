/** The mouse (or pen, or finger) on the image. Each press begins a gesture, which moves, ends, or is given up. */
import { line } from "./overlay.js";

/** Tools by name, with their key and what they do. */
export const TOOLS = {
  move: ["v", "Move the crosshair"],
  box: ["b", "Draw a box around the object"],
  plus: ["p", "Click into the object"],
  minus: ["n", "Click beside the object"],
  scribble: ["s", "Scribble in the object"],
  unscribble: ["d", "Scribble beside the object"],
  lasso: ["l", "Draw a lasso around the object"],
  brush: ["r", "Paint by hand"],
  eraser: ["e", "Erase by hand"],
};
const IN_THE_PLANE = ["box", "scribble", "unscribble", "lasso"];
const COLOURS = { box: "#ffe08a", lasso: "#ffe08a", scribble: "#5ee39a", unscribble: "#ff7b72" };

export class Tools {
  /**
   * @param {HTMLCanvasElement} canvas that hears the mouse
   * @param {object} does prompt(body), paint(voxels, erase), value(erase), hover(voxel or null), say(text)
   */
  constructor(canvas, viewer, overlay, does) {
    Object.assign(this, { canvas, viewer, overlay, does });
    this.tool = "box";
    this.size = 8; // of brush and scribble, in the smaller voxel edge
    this.plane = null; // under the mouse
    this.gesture = null;
    canvas.addEventListener("pointerdown", (event) => this.#press(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#release(event));
    canvas.addEventListener("pointercancel", () => this.cancel());
    canvas.addEventListener("pointerleave", () => this.#hover(null));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
  }

  choose(tool) {
    this.cancel();
    this.tool = tool;
    this.overlay.cursor = null;
    this.overlay.draw();
  }

  cancel() {
    this.gesture = this.overlay.gesture = null;
    this.overlay.draw();
  }

  #place(event) {
    const { left, top } = this.canvas.getBoundingClientRect();
    return [event.clientX - left, event.clientY - top];
  }

  #press(event) {
    const [x, y] = this.#place(event);
    const tile = this.viewer.tileAt(x, y);
    if (!tile || this.gesture) return;
    this.canvas.setPointerCapture(event.pointerId);
    event.preventDefault();
    document.activeElement?.blur();
    if (event.button === 2) this.gesture = this.#windowing(x, y);
    else if (event.button === 1 || event.shiftKey) this.gesture = this.#panning(tile, x, y);
    else if (IN_THE_PLANE.includes(this.tool) && tile.plane !== this.viewer.drawingPlane) {
      this.does.say(`Boxes, scribbles and lassos are drawn in the ${this.viewer.drawingPlane} view of this image.`);
    } else this.gesture = this[`_${this.tool}`](tile, x, y);
  }

  #move(event) {
    const [x, y] = this.#place(event);
    this.#hover(this.viewer.tileAt(x, y), x, y);
    this.gesture?.move(x, y);
    if (this.gesture || this.overlay.cursor) this.overlay.draw();
  }

  #release(event) {
    const gesture = this.gesture;
    this.gesture = this.overlay.gesture = null;
    gesture?.end?.(...this.#place(event));
    this.overlay.draw();
  }

  #hover(tile, x, y) {
    this.plane = tile?.plane ?? null;
    const voxel = tile?.toStored(x, y);
    const inside = voxel && tile.grid.contains(voxel) ? voxel : null;
    const had = this.overlay.cursor;
    this.overlay.cursor = null;
    if (inside && ["brush", "eraser"].includes(this.tool)) {
      const edge = Math.min(...tile.scale) * this.size * 0.5; // mm
      const radius = tile.extent.map((mm, at) => (edge / Math.abs(mm)) * [tile.width, tile.height][at]);
      this.overlay.cursor = { x, y, radius };
    } else if (had) this.overlay.draw();
    this.does.hover(inside);
  }

  #wheel(event) {
    const [x, y] = this.#place(event);
    const tile = this.viewer.tileAt(x, y);
    if (!tile) return;
    event.preventDefault();
    if (event.ctrlKey) this.viewer.zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15, tile, x, y);
    else this.viewer.setSlice(tile.plane, tile.index - Math.sign(event.deltaY));
    this.#hover(this.viewer.tileAt(x, y), x, y);
  }

  #windowing(x0, y0) {
    const [low, high] = this.viewer.window;
    return {
      move: (x, y) => {
        const width = high - low;
        const level = (low + high) / 2 + ((y - y0) / 300) * width;
        const wide = width * 2 ** ((x - x0) / 150);
        this.viewer.window = [level - wide / 2, level + wide / 2];
      },
    };
  }

  #panning(tile, x, y) {
    let last = [x, y];
    return {
      move: (nextX, nextY) => {
        this.viewer.pan(tile, nextX - last[0], nextY - last[1]);
        last = [nextX, nextY];
      },
    };
  }

  _move(tile) {
    const move = (x, y) => {
      const voxel = tile.toStored(x, y);
      if (tile.grid.contains(voxel)) this.viewer.goTo(voxel);
    };
    return { move, end: move };
  }

  _box(tile, x0, y0) {
    const first = clamped(tile, x0, y0);
    this.overlay.gesture = null;
    return {
      move: (x, y) => {
        this.overlay.gesture = (pen) => {
          pen.beginPath();
          pen.rect(x0, y0, x - x0, y - y0);
          line(pen, COLOURS.box, 1.5);
        };
      },
      end: (x, y) => {
        const last = clamped(tile, x, y);
        const ranges = [0, 1].map((axis) => [first[axis], last[axis]].sort((a, b) => a - b));
        if (ranges.some(([low, high]) => high - low < 1)) {
          this.does.say("Hold the mouse button and draw the box around the object.");
        } else this.does.prompt({ box: [...ranges[0], ...ranges[1], first[2], first[2]] });
      },
    };
  }

  _plus(tile, x, y) {
    return this.#click(tile, x, y, "foreground");
  }

  _minus(tile, x, y) {
    return this.#click(tile, x, y, "background");
  }

  #click(tile, x, y, kind) {
    const voxel = tile.toStored(x, y);
    if (tile.grid.contains(voxel)) {
      this.viewer.goTo(voxel);
      this.does.prompt({ [kind]: [voxel] });
    }
    return null;
  }

  _scribble(tile, x, y) {
    return this.#trace(tile, x, y, ({ k, points }) =>
      this.does.prompt({ scribbles: [{ k, foreground: this.tool === "scribble", points, width: this.size }] }),
    );
  }

  _unscribble(tile, x, y) {
    return this._scribble(tile, x, y);
  }

  _lasso(tile, x, y) {
    return this.#trace(tile, x, y, ({ k, points }) => {
      if (points.length < 3) this.does.say("Hold the mouse button and draw around the object.");
      else this.does.prompt({ lasso: { k, points } });
    });
  }

  /** A line drawn freely, as stored [i, j] without repetitions. */
  #trace(tile, x0, y0, done) {
    const places = [[x0, y0]];
    const k = tile.toStored(x0, y0)[2];
    const closed = this.tool === "lasso";
    const width = closed ? 1.5 : Math.max(2, (this.size * Math.min(...tile.scale) * tile.width) / Math.abs(tile.extent[0]));
    const move = (x, y) => {
      places.push([x, y]);
      this.overlay.gesture = (pen) => {
        pen.lineJoin = pen.lineCap = "round";
        pen.beginPath();
        places.forEach((place) => pen.lineTo(...place));
        if (closed) {
          pen.closePath();
          line(pen, COLOURS.lasso, width);
        } else {
          pen.globalAlpha = 0.6;
          pen.lineWidth = width;
          pen.strokeStyle = COLOURS[this.tool];
          pen.stroke();
          pen.globalAlpha = 1;
        }
      };
    };
    return {
      move,
      end: () => {
        const points = places.map(([x, y]) => clamped(tile, x, y).slice(0, 2));
        done({ k, points: points.filter((point, at) => !at || String(point) !== String(points[at - 1])) });
      },
    };
  }

  _brush(tile, x, y) {
    return this.#stroke(tile, x, y, false);
  }

  _eraser(tile, x, y) {
    return this.#stroke(tile, x, y, true);
  }

  #stroke(tile, x0, y0, erase) {
    const painted = new Map();
    const value = this.does.value(erase);
    let last = [x0, y0];
    const move = (x, y) => {
      const fresh = [];
      const steps = Math.max(1, Math.ceil(Math.hypot(x - last[0], y - last[1]) / 2));
      for (let step = 1; step <= steps; step++) {
        const place = [0, 1].map((at) => last[at] + (([x, y][at] - last[at]) * step) / steps);
        for (const voxel of disc(tile, ...place, this.size)) {
          const key = tile.grid.offset(...voxel);
          if (painted.has(key)) continue;
          painted.set(key, voxel);
          fresh.push(voxel);
        }
      }
      last = [x, y];
      if (fresh.length) this.viewer.paint(fresh, value);
    };
    move(x0, y0);
    return { move, end: () => painted.size && this.does.paint([...painted.values()], erase) };
  }
}

/** The stored voxel there, or the nearest one of the slice. */
function clamped(tile, x, y) {
  return tile.toStored(x, y).map((value, axis) => Math.min(tile.grid.shape[axis] - 1, Math.max(0, value)));
}

/** Stored voxels within a disc around a place on the screen; at least the one below it. */
function disc(tile, x, y, size) {
  const centre = tile.toShown(x, y).map(Math.round);
  const radius = (size / 2) * Math.min(...tile.scale); // mm
  const reach = tile.scale.map((edge) => Math.floor(radius / edge));
  const voxels = [];
  for (let b = -reach[1]; b <= reach[1]; b++) {
    for (let a = -reach[0]; a <= reach[0]; a++) {
      if (Math.hypot(a * tile.scale[0], b * tile.scale[1]) > radius && (a || b)) continue;
      const shown = [0, 0, 0];
      shown[tile.axes[0]] = centre[0] + a;
      shown[tile.axes[1]] = centre[1] + b;
      shown[tile.depth] = tile.index;
      const voxel = tile.grid.toStored(shown);
      if (tile.grid.contains(voxel)) voxels.push(voxel);
    }
  }
  return voxels;
}
