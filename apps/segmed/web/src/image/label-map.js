/**
 * The label map of the open image. NiiVue's drawing is its only copy, in shown order; voxels are given and taken in
 * stored order.
 *
 * @typedef {import("../types.js").Voxel} Voxel
 * @typedef {import("../types.js").LabelRectangle} LabelRectangle
 */
import { SLICES, inPlane } from "./planes.js";

export class LabelMap {
  #counts = new Array(256).fill(0); // of voxels by value, kept up to date, as a volume has too many to count each time

  /** @param {import("@niivue/niivue").Niivue} nv */
  constructor(nv) {
    this.nv = nv;
    /** @type {import("./grid.js").Grid | null} of the open image */
    this.grid = null;
    /** Grows with each change. */
    this.version = 0;
    /** Whether the mask is shown at all. */
    this.isShown = true;
  }

  /**
   * The label value of a voxel.
   * @param {Voxel} voxel
   */
  at([i, j, k]) {
    return this.nv.drawBitmap[this.grid.offset(i, j, k)];
  }

  /**
   * Put in what the server has changed.
   * @param {LabelRectangle[]} changes
   */
  apply(changes) {
    const touched = new Bounds();
    for (const { k, i, j, values, axis = SLICES } of changes) {
      const [p, q] = inPlane(axis);
      const voxel = [0, 0, 0];
      const place = (/** @type {number} */ column, /** @type {number} */ row) => {
        [voxel[p], voxel[q], voxel[axis]] = [column, row, k];
        return voxel;
      };
      let from = 0;
      for (let row = j[0]; row < j[1]; row++) {
        place(i[0], row);
        let at = this.grid.offset(voxel[0], voxel[1], voxel[2]);
        for (let column = i[0]; column < i[1]; column++, at += this.grid.step[p]) this.#set(at, values[from++]);
      }
      touched.add(this.grid.toShown(place(i[0], j[0])));
      touched.add(this.grid.toShown(place(i[1] - 1, j[1] - 1)));
    }
    this.#upload(touched);
  }

  /**
   * Set voxels to a label value.
   * @param {Voxel[]} voxels
   * @param {number} value
   */
  paint(voxels, value) {
    const touched = new Bounds();
    for (const voxel of voxels) {
      this.#set(this.grid.offset(voxel[0], voxel[1], voxel[2]), value);
      touched.add(this.grid.toShown(voxel));
    }
    this.#upload(touched);
  }

  /**
   * The values on a rectangle of slice k, ranges half-open.
   * @param {number} k
   * @param {number[]} i
   * @param {number[]} j
   * @returns {LabelRectangle}
   */
  read(k, i, j) {
    const values = new Uint8Array((i[1] - i[0]) * (j[1] - j[0]));
    let to = 0;
    for (let row = j[0]; row < j[1]; row++) {
      for (let column = i[0]; column < i[1]; column++) values[to++] = this.at([column, row, k]);
    }
    return { k, i, j, values };
  }

  /** Numbers of voxels by label value. */
  counts() {
    return [...this.#counts];
  }

  /**
   * Another image is open, on which nothing is labelled yet.
   * @param {import("./grid.js").Grid} grid
   */
  begin(grid) {
    this.grid = grid;
    this.#forget();
    this.version++;
  }

  #forget() {
    this.#counts.fill(0);
    this.#counts[0] = this.grid.size;
  }

  /**
   * @param {number} at place of a voxel
   * @param {number} value
   */
  #set(at, value) {
    const { drawBitmap } = this.nv;
    this.#counts[drawBitmap[at]]--;
    this.#counts[value]++;
    drawBitmap[at] = value;
  }

  empty() {
    this.nv.drawBitmap.fill(0);
    this.#forget();
    const all = new Bounds();
    all.add([0, 0, 0]);
    all.add(this.grid.shown.map((size) => size - 1));
    this.#upload(all);
  }

  /** @param {number} value 0 to 1; at 0 the outlines are hidden too */
  set opacity(value) {
    this.isShown = value > 0;
    this.nv.setDrawOpacity(value);
  }

  /**
   * The values on a plane, in shown order: rows along the first axis of the plane.
   * @param {number} depth shown axis across the plane
   * @param {number} index of the slice along it
   */
  plane(depth, index) {
    const [columns, rows, slices] = this.grid.shown;
    const { drawBitmap } = this.nv;
    const area = columns * rows;
    if (depth === 2) return drawBitmap.subarray(index * area, (index + 1) * area);
    const width = depth === 1 ? columns : rows;
    const values = new Uint8Array(width * slices);
    const [start, step] = depth === 1 ? [index * columns, 1] : [index, columns];
    for (let z = 0, to = 0; z < slices; z++) {
      for (let n = 0, at = start + z * area; n < width; n++, at += step) values[to++] = drawBitmap[at];
    }
    return values;
  }

  /**
   * Copy a part of the label map to the graphics card: the whole would take longer than the answer of the server.
   * @param {Bounds} part
   */
  #upload({ low, high }) {
    this.version++;
    if (low[0] <= high[0]) {
      const { gl, drawTexture, drawBitmap } = this.nv;
      const [width, height] = this.grid.shown;
      const size = low.map((value, axis) => high[axis] - value + 1);
      const first = low[0] + width * (low[1] + height * low[2]);
      const kind = this.nv.opts.is2DSliceShader ? gl.TEXTURE_2D : gl.TEXTURE_3D;
      gl.activeTexture(gl.TEXTURE7); // where NiiVue keeps its drawing
      gl.bindTexture(kind, drawTexture);
      gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
      gl.pixelStorei(gl.UNPACK_ROW_LENGTH, width);
      gl.pixelStorei(gl.UNPACK_IMAGE_HEIGHT, height);
      const [x, y, z] = low;
      const [columns, rows, slices] = size;
      if (kind === gl.TEXTURE_2D) {
        gl.texSubImage2D(kind, 0, x, y, columns, rows, gl.RED, gl.UNSIGNED_BYTE, drawBitmap, first);
      } else {
        gl.texSubImage3D(kind, 0, x, y, z, columns, rows, slices, gl.RED, gl.UNSIGNED_BYTE, drawBitmap, first);
      }
      gl.pixelStorei(gl.UNPACK_ROW_LENGTH, 0);
      gl.pixelStorei(gl.UNPACK_IMAGE_HEIGHT, 0);
    }
    this.nv.drawScene();
  }
}

/** The smallest box of shown voxels around those that were added. */
class Bounds {
  low = [Infinity, Infinity, Infinity];
  high = [-Infinity, -Infinity, -Infinity];

  /** @param {number[]} voxel shown */
  add(voxel) {
    for (let axis = 0; axis < 3; axis++) {
      this.low[axis] = Math.min(this.low[axis], voxel[axis]);
      this.high[axis] = Math.max(this.high[axis], voxel[axis]);
    }
  }
}
