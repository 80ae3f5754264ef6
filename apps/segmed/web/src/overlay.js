/** What lies over the image: prompts, the gesture being made, outlines of models that are compared. */
const PLUS = "#5ee39a";
const MINUS = "#ff7b72";
const BOX = "#ffe08a";

export class Overlay {
  constructor(canvas, viewer) {
    this.canvas = canvas;
    this.viewer = viewer;
    this.prompts = []; // {box, foreground, background}
    this.outlines = []; // {colour, paths: Map of slice k to Path2D in stored voxels}
    this.gesture = null; // (pen) => void
    this.cursor = null; // {x, y, radius: [along x, along y]} of the brush
  }

  draw() {
    const scale = window.devicePixelRatio || 1;
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (this.canvas.width !== Math.round(width * scale) || this.canvas.height !== Math.round(height * scale)) {
      this.canvas.width = Math.round(width * scale);
      this.canvas.height = Math.round(height * scale);
    }
    const pen = this.canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    for (const tile of this.viewer.tiles()) {
      pen.save();
      pen.beginPath();
      pen.rect(tile.left, tile.top, tile.width, tile.height);
      pen.clip();
      this.#outlines(pen, tile);
      for (const prompt of this.prompts) this.#prompt(pen, tile, prompt);
      this.#caption(pen, tile);
      pen.restore();
    }
    this.gesture?.(pen);
    if (this.cursor) {
      pen.beginPath();
      pen.ellipse(this.cursor.x, this.cursor.y, ...this.cursor.radius, 0, 0, 2 * Math.PI);
      line(pen, "#fff", 1);
    }
  }

  #prompt(pen, tile, { box, foreground = [], background = [] }) {
    if (box) {
      const corners = [0, 1].map((end) => tile.grid.toShown([box[end], box[2 + end], box[4 + end]]));
      const low = corners[0].map((value, axis) => Math.min(value, corners[1][axis]));
      const high = corners[0].map((value, axis) => Math.max(value, corners[1][axis]));
      if (low[tile.depth] <= tile.index && tile.index <= high[tile.depth]) {
        const from = tile.toScreen(tile.axes.map((axis) => low[axis] - 0.5));
        const to = tile.toScreen(tile.axes.map((axis) => high[axis] + 0.5));
        pen.beginPath();
        pen.rect(from[0], from[1], to[0] - from[0], to[1] - from[1]);
        line(pen, BOX, 1.5);
      }
    }
    for (const [points, colour] of [[foreground, PLUS], [background, MINUS]]) {
      const radius = points.length > 12 ? 2 : 6; // many of them come from a scribble
      for (const point of points) {
        const shown = tile.grid.toShown(point);
        if (shown[tile.depth] !== tile.index) continue;
        dot(pen, tile.toScreen(tile.axes.map((axis) => shown[axis])), radius, colour, colour === PLUS);
      }
    }
  }

  #outlines(pen, tile) {
    if (tile.plane !== this.viewer.drawingPlane) return;
    const k = tile.toStored(tile.left, tile.top)[2];
    for (const { colour, paths } of this.outlines) {
      const path = paths.get(k);
      if (!path) continue;
      const corner = (i, j) => {
        const shown = tile.grid.toShown([i, j, k]);
        return tile.toScreen(tile.axes.map((axis) => shown[axis]));
      };
      const [origin, right, down] = [corner(-0.5, -0.5), corner(0.5, -0.5), corner(-0.5, 0.5)];
      const placed = new Path2D();
      placed.addPath(
        path,
        new DOMMatrix([
          ...[right[0] - origin[0], right[1] - origin[1]],
          ...[down[0] - origin[0], down[1] - origin[1]],
          ...origin,
        ]),
      );
      pen.lineWidth = 2;
      pen.strokeStyle = colour;
      pen.stroke(placed);
    }
  }

  #caption(pen, tile) {
    const count = tile.grid.shown[tile.depth];
    if (count === 1) return;
    pen.font = "12px system-ui, sans-serif";
    pen.fillStyle = "#9fb3c8";
    pen.shadowColor = "#000";
    pen.shadowBlur = 3;
    pen.fillText(`${tile.plane[0].toUpperCase()}${tile.plane.slice(1)} ${tile.index + 1} / ${count}`, tile.left + 8, tile.top + tile.height - 9);
    pen.shadowBlur = 0;
  }
}

/** Stroke the path so that it stands out on dark and on bright. */
export function line(pen, colour, width) {
  pen.lineWidth = width + 2;
  pen.strokeStyle = "rgb(0 0 0 / 55%)";
  pen.stroke();
  pen.lineWidth = width;
  pen.strokeStyle = colour;
  pen.stroke();
}

function dot(pen, [x, y], radius, colour, plus) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  pen.fillStyle = colour;
  pen.fill();
  if (radius < 5) return;
  line(pen, "#fff", 1);
  pen.beginPath();
  pen.moveTo(x - 3, y);
  pen.lineTo(x + 3, y);
  if (plus) {
    pen.moveTo(x, y - 3);
    pen.lineTo(x, y + 3);
  }
  pen.lineWidth = 1.5;
  pen.strokeStyle = "#10261a";
  pen.stroke();
}

/** The border of a mask on one slice, in stored voxels: voxel (i, j) is the square from (i, j) to (i + 1, j + 1). */
export function outline({ i, j, values }) {
  const width = i[1] - i[0];
  const height = j[1] - j[0];
  const at = (x, y) => x >= 0 && y >= 0 && x < width && y < height && values[x + y * width] > 0;
  const path = new Path2D();
  for (let y = 0; y <= height; y++) {
    for (let x = 0; x <= width; x++) {
      if (at(x, y) !== at(x, y - 1)) {
        path.moveTo(i[0] + x, j[0] + y);
        path.lineTo(i[0] + x + 1, j[0] + y);
      }
      if (at(x, y) !== at(x - 1, y)) {
        path.moveTo(i[0] + x, j[0] + y);
        path.lineTo(i[0] + x, j[0] + y + 1);
      }
    }
  }
  return path;
}
