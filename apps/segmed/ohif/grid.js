// Which voxel of OHIF's volume is which voxel of the server's image.
//
// Both hold the slices of one series, each in an order and with a direction of its own, so that a voxel of one is a
// voxel of the other: axes are swapped or mirrored, never resampled. Axes are matched by their directions and not by
// positions, because OHIF shows the slices of a tilted gantry as if they stood upright.

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const unit = a => a.map(v => v / Math.hypot(...a));
const IN_LINE = 0.7; // cosine; directions of one series agree or stand at right angles
const SQUARE = 0.01; // cosine, above which slices are askew

/**
 * @typedef {object} CornerstoneVolume in left-posterior-superior mm
 * @property {number[]} dimensions
 * @property {number[]} origin
 * @property {number[]} spacing
 * @property {number[]} direction of the three axes, one after the other
 * @property {string} [volumeId]
 * @property {string[]} [referencedImageIds]
 * @property {any} [voxelManager] of its values
 */

export class GridMap {
  /**
   * @param {{shape: number[], affine: number[][]}} image of the server, voxel to right-anterior-superior mm
   * @param {CornerstoneVolume} volume
   */
  constructor(image, volume) {
    this.shape = image.shape;
    this.origin = Array.from(volume.origin);
    this.spacing = Array.from(volume.spacing);
    this.directions = [0, 3, 6].map(n => Array.from(volume.direction.slice(n, n + 3)));
    const { dimensions } = volume;
    this.columns = [0, 1, 2].map(a => [-image.affine[0][a], -image.affine[1][a], image.affine[2][a]]);
    this.start = [-image.affine[0][3], -image.affine[1][3], image.affine[2][3]];
    const along = this.columns.map(column => this.directions.map(d => dot(unit(column), d)));
    this.axis = along.map(cosines => cosines.findIndex(c => Math.abs(c) > IN_LINE));
    const matched = new Set(this.axis).size === 3 && !this.axis.includes(-1);
    if (!matched || this.axis.some((b, a) => dimensions[b] !== this.shape[a])) {
      throw new Error(
        `OHIF shows this series with ${dimensions.join(' × ')} voxels, and the server has ` +
          `${this.shape.join(' × ')}. Slices may be missing or doubled. Fetch the series again.`,
      );
    }
    this.mirrored = this.axis.map((b, a) => along[a][b] < 0);
    const strides = [1, dimensions[0], dimensions[0] * dimensions[1]];
    this.steps = this.axis.map((b, a) => (this.mirrored[a] ? -strides[b] : strides[b]));
    this.first = this.axis.reduce((sum, b, a) => sum + (this.mirrored[a] ? (dimensions[b] - 1) * strides[b] : 0), 0);
    const askew =
      Math.abs(dot(unit(this.columns[0]), unit(this.columns[2]))) > SQUARE ||
      Math.abs(dot(unit(this.columns[1]), unit(this.columns[2]))) > SQUARE;
    const off = this.voxel(this.start).map(Math.abs);
    if (!askew && Math.max(...off) > 0.5) {
      throw new Error('OHIF and the server place this series differently, so masks would be misplaced.');
    }
  }

  /**
   * Number of a voxel of the server's image in OHIF's array.
   * @param {number} i
   * @param {number} j
   * @param {number} k
   */
  index(i, j, k) {
    return this.first + i * this.steps[0] + j * this.steps[1] + k * this.steps[2];
  }

  /**
   * Voxel coordinates in the server's image, not rounded, of a place in mm as OHIF shows it.
   * @param {number[]} world
   */
  voxel(world) {
    const from = world.map((v, n) => v - this.origin[n]);
    const inViewer = this.directions.map((d, b) => dot(from, d) / this.spacing[b]);
    return this.axis.map((b, a) => (this.mirrored[a] ? this.shape[a] - 1 - inViewer[b] : inViewer[b]));
  }

  /**
   * Place in mm, as OHIF shows it, of voxel coordinates in the server's image.
   * @param {number[]} voxel
   */
  world(voxel) {
    const inViewer = [0, 0, 0];
    this.axis.forEach((b, a) => (inViewer[b] = this.mirrored[a] ? this.shape[a] - 1 - voxel[a] : voxel[a]));
    return this.origin.map(
      (v, n) => v + inViewer.reduce((sum, at, b) => sum + at * this.spacing[b] * this.directions[b][n], 0),
    );
  }

  /**
   * The line in mm of a line that the server keeps, and the direction across its slice.
   * @param {{axis: number, k: number, points: number[][]}} drawn
   * @returns {{places: number[][], normal: number[]}}
   */
  places({ axis, k, points }) {
    const places = points.map(point => this.world([...point.slice(0, axis), k, ...point.slice(axis)]));
    return { places, normal: this.directions[this.axis[axis]] };
  }

  /**
   * The region [i0, i1, j0, j1, k0, k1] of corners in mm.
   * @param {number[][]} corners
   * @throws {Error} they do not lie along one slice
   */
  region(corners) {
    const voxels = corners.map(corner => this.voxel(corner));
    const ends = [0, 1, 2].map(a => {
      const values = voxels.map(voxel => voxel[a]);
      return [Math.min(...values), Math.max(...values)];
    });
    const [wide, high, deep] = ends.map(([low, top]) => top - low);
    if (deep > 1 && (deep > wide || deep > high)) {
      throw new Error(`Draw the box in the ${this.plane()} view: this series was taken in that plane.`);
    }
    const k = Math.round((ends[2][0] + ends[2][1]) / 2);
    return [...ends[0], ...ends[1], k, k].map(Math.round);
  }

  /**
   * A line along a slice of a view: the slice's number, the voxels on the two other axes in the order i, j, k, and the
   * axis across.
   * @param {number[][]} line places in mm
   * @param {number[]} normal of the view
   * @returns {{across: number, k: number, points: number[][]}}
   */
  line(line, normal) {
    const turned = this.axis.map(b => Math.abs(dot(unit(normal), this.directions[b])));
    const across = turned.indexOf(Math.max(...turned));
    const voxels = line.map(place => this.voxel(place).map((v, a) => Math.min(Math.max(v, 0), this.shape[a] - 1)));
    const k = Math.round(voxels.reduce((sum, voxel) => sum + voxel[across], 0) / voxels.length);
    return { across, k, points: voxels.map(voxel => voxel.filter((_, a) => a !== across)) };
  }

  /** Name of the view that shows the slices as they were taken. */
  plane() {
    const normal = unit(this.columns[2]).map(Math.abs);
    return ['sagittal', 'coronal', 'axial'][normal.indexOf(Math.max(...normal))];
  }

  /** Whether the slices were taken at an angle to the patient's axes. */
  isOblique() {
    return this.columns.some(column => Math.max(...unit(column).map(Math.abs)) < 0.999);
  }

  /**
   * OHIF's array in the order of the server's image, first axis fastest.
   * @param {Uint8Array} values
   */
  inServerOrder(values) {
    const [I, J, K] = this.shape;
    if (this.first === 0 && this.steps[0] === 1 && this.steps[1] === I && this.steps[2] === I * J) {
      return values;
    }
    const ordered = new Uint8Array(values.length);
    let to = 0;
    for (let k = 0; k < K; k++) {
      for (let j = 0; j < J; j++) {
        let from = this.index(0, j, k);
        for (let i = 0; i < I; i++, from += this.steps[0]) {
          ordered[to++] = values[from];
        }
      }
    }
    return ordered;
  }

  /** Size and place of the server's image, as a label map is sent. */
  place() {
    const spacing = this.columns.map(column => Math.hypot(...column));
    const axes = this.columns.map(unit);
    const direction = [0, 1, 2].flatMap(row => axes.map(axis => axis[row]));
    return { size: this.shape, origin: this.start, spacing, direction };
  }
}
