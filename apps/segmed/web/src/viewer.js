/** The image and its label map on the screen. Voxels are stored (i, j, k) everywhere outside of this file. */
import { Niivue, NVImage } from "@niivue/niivue";
import { table } from "./colours.js";
import { Grid, IN_PLANE, PLANES } from "./grid.js";
import { turnPicture } from "./picture.js";

const SLICE_TYPES = { axial: 0, coronal: 1, sagittal: 2, multi: 3 };
const NEVER = 0;

export class Viewer {
  /** @param {HTMLCanvasElement} canvas NiiVue's; this class reads no mouse and no keys */
  constructor(canvas) {
    this.canvas = canvas;
    this.meta = null;
    this.grid = null;
    this.view = "axial";
    this.onDraw = () => {};
    this.nv = new Niivue({
      isRadiologicalConvention: true,
      multiplanarShowRender: NEVER,
      multiplanarPadPixels: 4,
      backColor: [0.04, 0.05, 0.06, 1],
      crosshairColor: [0.45, 0.75, 1, 0.7],
      crosshairWidthUnit: "percent",
      fontColor: [0.55, 0.62, 0.7, 1],
      dragAndDropEnabled: false,
      interactive: false,
      isAntiAlias: false,
      loadingText: "",
      logLevel: "error",
    });
  }

  async attach() {
    await this.nv.attachToCanvas(this.canvas, false);
    this.nv.drawLut = table();
    this.nv.drawOpacity = 0.4;
    this.nv.drawRimOpacity = 0.95;
    const flat = this.nv.rgbaTex2D.bind(this.nv);
    // NiiVue forgets the texture of a large grey picture, and would leave one behind at each change of the window
    this.nv.rgbaTex2D = (...given) => (this.nv.volumeTexture = flat(...given));
    const draw = this.nv.drawScene.bind(this.nv);
    this.nv.drawScene = () => {
      draw();
      this.onDraw();
    };
  }

  /** Show an image. `meta` is the server's answer to GET api/images/{id}, `buffer` its NIfTI file. */
  async open(buffer, meta) {
    const picture = meta.shape[2] === 1 ? turnPicture(buffer, meta.shape, meta.affine) : null;
    const [low, high] = meta.window;
    const image = await NVImage.new(picture?.buffer ?? buffer, "image.nii", "gray", 1, null, low, high);
    this.close();
    this.nv.opts.isOrientationTextVisible = !picture;
    this.nv.scene.pan2Dxyzmm = [0, 0, 0, 1];
    this.nv.addVolume(image);
    this.nv.createEmptyDrawing();
    this.grid = picture?.grid ?? new Grid(meta.shape, image.permRAS);
    this.meta = meta;
    this.nv.scene.crosshairPos = this.grid.shown.map((size) => (Math.floor(size / 2) + 0.5) / size);
    this.nv.volumes[0].cal_min = low;
    this.nv.volumes[0].cal_max = high;
    this.show(PLANES[this.grid.depth]);
  }

  close() {
    this.meta = this.grid = null;
    for (const volume of [...this.nv.volumes]) this.nv.removeVolume(volume);
    if (this.nv.opts.is2DSliceShader) {
      // its textures are of another kind
      this.nv.gl.deleteTexture(this.nv.volumeTexture);
      this.nv.gl.deleteTexture(this.nv.drawTexture);
      this.nv.volumeTexture = this.nv.drawTexture = null;
      this.nv.opts.is2DSliceShader = false;
    }
  }

  /** `axial`, `coronal`, `sagittal` or `multi`. */
  show(view) {
    this.view = view;
    this.nv.opts.crosshairWidth = view === "multi" ? 0.25 : 0;
    if (this.nv.crosshairs3D) this.nv.crosshairs3D.mm[0] = NaN;
    this.nv.setSliceType(SLICE_TYPES[view]);
  }

  /** The plane in which boxes, scribbles and lassos are drawn. */
  get drawingPlane() {
    return PLANES[this.grid.depth];
  }

  slice(plane) {
    const axis = PLANES.indexOf(plane);
    const size = this.grid.shown[axis];
    return Math.min(size - 1, Math.max(0, Math.floor(this.nv.scene.crosshairPos[axis] * size)));
  }

  setSlice(plane, index) {
    const axis = PLANES.indexOf(plane);
    const size = this.grid.shown[axis];
    this.nv.scene.crosshairPos[axis] = (Math.min(size - 1, Math.max(0, index)) + 0.5) / size;
    this.nv.drawScene();
  }

  /** Move all planes to a stored voxel. */
  goTo(voxel) {
    const shown = this.grid.toShown(voxel);
    this.nv.scene.crosshairPos = shown.map((value, axis) => (value + 0.5) / this.grid.shown[axis]);
    this.nv.drawScene();
  }

  get window() {
    const { cal_min, cal_max } = this.nv.volumes[0];
    return [cal_min, cal_max];
  }

  /** Values shown black and white. */
  set window([low, high]) {
    const volume = this.nv.volumes[0];
    volume.cal_min = low;
    volume.cal_max = Math.max(high, low + 1e-6);
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      if (this.nv.volumes.length) this.nv.updateGLVolume();
    });
  }

  get isColour() {
    return [128, 2304].includes(this.nv.volumes[0].hdr.datatypeCode);
  }

  /** Smallest and largest value of the image, of about 200 000 voxels. */
  get range() {
    const { img, hdr } = this.nv.volumes[0];
    let [low, high] = [Infinity, -Infinity];
    const step = Math.max(1, Math.floor(img.length / 200_003));
    for (let at = 0; at < img.length; at += step) {
      low = Math.min(low, img[at]);
      high = Math.max(high, img[at]);
    }
    return [low, high].map((value) => value * (hdr.scl_slope || 1) + hdr.scl_inter);
  }

  intensity(voxel) {
    const { img, hdr } = this.nv.volumes[0];
    const [i, j, k] = voxel;
    const [columns, rows, slices] = this.grid.shape;
    const at = slices === 1 ? this.grid.offset(i, j, k) : i + columns * (j + rows * k);
    if (this.isColour) {
      const width = hdr.numBitsPerVoxel / 8;
      return [...img.subarray(at * width, at * width + 3)].join(" ");
    }
    return String(Number((img[at] * (hdr.scl_slope || 1) + hdr.scl_inter).toPrecision(5)));
  }

  zoom(factor, tile, x, y) {
    const [px, py, pz, before] = this.nv.scene.pan2Dxyzmm;
    const after = Math.min(40, Math.max(0.5, before * factor));
    const pan = [px, py, pz];
    const fraction = tile.fraction(x, y);
    tile.axes.forEach((axis, at) => {
      pan[axis] += (tile.low[at] + fraction[at] * tile.extent[at]) * (before - after);
    });
    this.nv.setPan2Dxyzmm([...pan, after]);
  }

  pan(tile, dx, dy) {
    const pan = [...this.nv.scene.pan2Dxyzmm];
    const moved = [dx / tile.width, -dy / tile.height];
    tile.axes.forEach((axis, at) => (pan[axis] += moved[at] * tile.extent[at] * pan[3]));
    this.nv.setPan2Dxyzmm(pan);
  }

  fit() {
    this.nv.setPan2Dxyzmm([0, 0, 0, 1]);
  }

  /** The planes on the screen. */
  tiles() {
    if (!this.grid) return [];
    const scale = this.canvas.width / this.canvas.clientWidth;
    return this.nv.screenSlices.filter((one) => one.axCorSag <= 2).map((one) => new Tile(one, this, scale));
  }

  tileAt(x, y) {
    return this.tiles().find((tile) => tile.holds(x, y));
  }

  // ---- label map: NiiVue's drawing is the only copy, in shown order

  label(voxel) {
    return this.nv.drawBitmap[this.grid.offset(...voxel)];
  }

  /** Put decoded changes into the label map, and what they cover on the screen. */
  apply(changes) {
    const touched = new Bounds();
    for (const { k, i, j, values } of changes) {
      let from = 0;
      for (let row = j[0]; row < j[1]; row++) {
        let at = this.grid.offset(i[0], row, k);
        for (let column = i[0]; column < i[1]; column++, at += this.grid.step[0]) {
          this.nv.drawBitmap[at] = values[from++];
        }
      }
      touched.add(this.grid.toShown([i[0], j[0], k]));
      touched.add(this.grid.toShown([i[1] - 1, j[1] - 1, k]));
    }
    this.upload(touched);
  }

  /** Set stored voxels to a label value. */
  paint(voxels, value) {
    const touched = new Bounds();
    for (const voxel of voxels) {
      this.nv.drawBitmap[this.grid.offset(...voxel)] = value;
      touched.add(this.grid.toShown(voxel));
    }
    this.upload(touched);
  }

  /** The label map on a rectangle of slice k, half-open ranges, as a change. */
  read(k, i, j) {
    const values = new Uint8Array((i[1] - i[0]) * (j[1] - j[0]));
    let to = 0;
    for (let row = j[0]; row < j[1]; row++) {
      for (let column = i[0]; column < i[1]; column++) values[to++] = this.label([column, row, k]);
    }
    return { k, i, j, values };
  }

  /** Voxels by value of the label map. */
  counts() {
    const counts = new Array(256).fill(0);
    for (const value of this.nv.drawBitmap) counts[value]++;
    return counts;
  }

  empty() {
    this.nv.drawBitmap.fill(0);
    const all = new Bounds();
    all.add([0, 0, 0]);
    all.add(this.grid.shown.map((size) => size - 1));
    this.upload(all);
  }

  set opacity(value) {
    this.nv.drawRimOpacity = value ? 0.95 : 0;
    this.nv.setDrawOpacity(value);
  }

  /** Wait until the graphics card has drawn. */
  settle() {
    const { gl } = this.nv;
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
  }

  /** Copy a part of the label map to the graphics card: the whole would take longer than the answer of the server. */
  upload({ low, high }) {
    if (low[0] <= high[0]) {
      const { gl, drawTexture, drawBitmap } = this.nv;
      const [width, height] = this.grid.shown;
      const size = low.map((value, axis) => high[axis] - value + 1);
      const first = low[0] + width * (low[1] + height * low[2]);
      const kind = this.nv.opts.is2DSliceShader ? gl.TEXTURE_2D : gl.TEXTURE_3D;
      gl.activeTexture(gl.TEXTURE7);
      gl.bindTexture(kind, drawTexture);
      gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
      gl.pixelStorei(gl.UNPACK_ROW_LENGTH, width);
      gl.pixelStorei(gl.UNPACK_IMAGE_HEIGHT, height);
      if (kind === gl.TEXTURE_2D) {
        gl.texSubImage2D(kind, 0, low[0], low[1], size[0], size[1], gl.RED, gl.UNSIGNED_BYTE, drawBitmap, first);
      } else {
        gl.texSubImage3D(kind, 0, ...low, ...size, gl.RED, gl.UNSIGNED_BYTE, drawBitmap, first);
      }
      gl.pixelStorei(gl.UNPACK_ROW_LENGTH, 0);
      gl.pixelStorei(gl.UNPACK_IMAGE_HEIGHT, 0);
    }
    this.nv.drawScene();
  }
}

class Bounds {
  low = [Infinity, Infinity, Infinity];
  high = [-Infinity, -Infinity, -Infinity];

  add(voxel) {
    for (let axis = 0; axis < 3; axis++) {
      this.low[axis] = Math.min(this.low[axis], voxel[axis]);
      this.high[axis] = Math.max(this.high[axis], voxel[axis]);
    }
  }
}

/** One plane on the screen. Places on the screen are CSS pixels of the canvas. */
class Tile {
  constructor(slice, viewer, scale) {
    const [left, top, width, height] = slice.leftTopWidthHeight.map((value) => value / scale);
    Object.assign(this, { left, top, width, height });
    this.plane = ["axial", "coronal", "sagittal"][slice.axCorSag];
    this.grid = viewer.grid;
    this.depth = PLANES.indexOf(this.plane);
    this.axes = IN_PLANE[this.depth];
    this.index = viewer.slice(this.plane);
    this.low = slice.leftTopMM;
    this.extent = slice.fovMM;
    const toMm = viewer.nv.volumes[0].frac2mmOrtho;
    this.origin = this.axes.map((axis) => toMm[12 + axis]);
    this.scale = this.axes.map((axis) => toMm[5 * axis] / this.grid.shown[axis]); // mm per voxel
  }

  holds(x, y) {
    return x >= this.left && y >= this.top && x < this.left + this.width && y < this.top + this.height;
  }

  fraction(x, y) {
    return [(x - this.left) / this.width, 1 - (y - this.top) / this.height];
  }

  /** Place on the screen of continuous shown coordinates along the two axes of the plane. */
  toScreen([a, b]) {
    const [u, v] = [a, b].map((value, at) => ((value + 0.5) * this.scale[at] + this.origin[at] - this.low[at]) / this.extent[at]);
    return [this.left + u * this.width, this.top + (1 - v) * this.height];
  }

  /** Continuous shown coordinates along the two axes of the plane. */
  toShown(x, y) {
    return this.fraction(x, y).map(
      (part, at) => (this.low[at] + part * this.extent[at] - this.origin[at]) / this.scale[at] - 0.5,
    );
  }

  /** The stored voxel there, whether the image has it or not. */
  toStored(x, y) {
    const shown = [0, 0, 0];
    const place = this.toShown(x, y);
    this.axes.forEach((axis, at) => (shown[axis] = Math.round(place[at])));
    shown[this.depth] = this.index;
    return this.grid.toStored(shown);
  }
}
