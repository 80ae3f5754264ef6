/** The values of the open image, and which of them are shown black and white. */

const SAMPLES = 200_003; // prime, so that steps through the voxels do not follow rows
const RGB24 = 128; // types of NIfTI
const RGBA32 = 2304;

export class Intensities {
  #frame = 0; // the browser's number of the next drawing

  /** @param {import("@niivue/niivue").Niivue} nv */
  constructor(nv) {
    this.nv = nv;
  }

  /** @returns {[number, number]} values shown black and white */
  get window() {
    const { cal_min, cal_max } = this.nv.volumes[0];
    return [cal_min, cal_max];
  }

  set window([low, high]) {
    const volume = this.nv.volumes[0];
    volume.cal_min = low;
    volume.cal_max = Math.max(high, low + 1e-6);
    if (this.#frame) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      if (this.nv.volumes.length) this.nv.updateGLVolume();
    });
  }

  /** Whether small values are shown white. */
  get isInverted() {
    return Boolean(this.nv.volumes[0].colormapInvert);
  }

  set isInverted(value) {
    this.nv.volumes[0].colormapInvert = value;
    this.nv.updateGLVolume();
  }

  get isColour() {
    return [RGB24, RGBA32].includes(this.nv.volumes[0].hdr.datatypeCode);
  }

  /**
   * Smallest and largest value, of about 200 000 voxels.
   * @returns {[number, number]}
   */
  get range() {
    const { img, hdr } = this.nv.volumes[0];
    let [low, high] = [Infinity, -Infinity];
    const step = Math.max(1, Math.floor(img.length / SAMPLES));
    for (let at = 0; at < img.length; at += step) {
      low = Math.min(low, img[at]);
      high = Math.max(high, img[at]);
    }
    const scaled = (/** @type {number} */ value) => value * (hdr.scl_slope || 1) + hdr.scl_inter;
    return [scaled(low), scaled(high)];
  }

  /**
   * The value of a stored voxel as text, for colours red, green and blue.
   * @param {import("../types.js").Voxel} voxel
   * @param {import("./grid.js").Grid} grid
   */
  at([i, j, k], grid) {
    const { img, hdr } = this.nv.volumes[0];
    const [columns, rows, slices] = grid.shape;
    // NiiVue keeps volumes as they are stored, and a single slice as single-slice.js turned it
    const at = slices === 1 ? grid.offset(i, j, k) : i + columns * (j + rows * k);
    if (this.isColour) {
      const width = hdr.numBitsPerVoxel / 8;
      return [...img.subarray(at * width, at * width + 3)].join(" ");
    }
    return String(Number((img[at] * (hdr.scl_slope || 1) + hdr.scl_inter).toPrecision(5)));
  }
}
