/**
 * Two orders of the same voxels: *stored* (i, j, k), in which the server counts, and *shown* (x, y, z), the nearest
 * right-anterior-superior order, in which NiiVue keeps and draws volumes.
 */
export class Grid {
  /**
   * @param {number[]} shape stored size along i, j, k
   * @param {number[]} order for each shown axis the stored axis, from 1, negative where it runs the other way
   */
  constructor(shape, order) {
    this.shape = shape;
    this.order = order;
    this.shown = order.map((axis) => shape[Math.abs(axis) - 1]);
    const strides = [1, this.shown[0], this.shown[0] * this.shown[1]];
    this.start = 0;
    this.step = [0, 0, 0];
    order.forEach((axis, at) => {
      this.step[Math.abs(axis) - 1] = Math.sign(axis) * strides[at];
      if (axis < 0) this.start += strides[at] * (this.shown[at] - 1);
    });
  }

  /** Number of voxels. */
  get size() {
    return this.shape[0] * this.shape[1] * this.shape[2];
  }

  /** The shown axis across the stored slices: 0 sagittal, 1 coronal, 2 axial. */
  get depth() {
    return this.order.findIndex((axis) => Math.abs(axis) === 3);
  }

  /**
   * Place of a stored voxel in an array of shown order.
   * @param {number} i
   * @param {number} j
   * @param {number} k
   */
  offset(i, j, k) {
    return this.start + i * this.step[0] + j * this.step[1] + k * this.step[2];
  }

  /**
   * @param {number[]} voxel stored, also between voxels
   * @returns {number[]} shown
   */
  toShown(voxel) {
    return this.order.map((axis, at) => {
      const value = voxel[Math.abs(axis) - 1];
      return axis > 0 ? value : this.shown[at] - 1 - value;
    });
  }

  /**
   * @param {number[]} voxel shown
   * @returns {number[]} stored
   */
  toStored(voxel) {
    const stored = [0, 0, 0];
    this.order.forEach((axis, at) => {
      stored[Math.abs(axis) - 1] = axis > 0 ? voxel[at] : this.shown[at] - 1 - voxel[at];
    });
    return stored;
  }

  /**
   * Whether the image has that voxel.
   * @param {number[]} voxel stored
   */
  contains(voxel) {
    return voxel.every((value, axis) => value >= 0 && value < this.shape[axis]);
  }

  /**
   * The nearest voxel of the image.
   * @param {number[]} voxel stored
   */
  clamped(voxel) {
    return voxel.map((value, axis) => Math.min(this.shape[axis] - 1, Math.max(0, value)));
  }
}

/**
 * Names of the planes by the shown axis across them.
 * @type {import("../types.js").Plane[]}
 */
export const PLANES = ["sagittal", "coronal", "axial"];

/** The two shown axes of a plane, to the right and upwards before mirroring. */
export const IN_PLANE = [
  [1, 2],
  [0, 2],
  [0, 1],
];
