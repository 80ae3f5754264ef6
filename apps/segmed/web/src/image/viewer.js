/** The image on the screen: opening it, its planes and slices, zoom. Voxels are stored (i, j, k) outside of `image/`. */
import { Niivue, NVImage } from "@niivue/niivue";
import { Grid, PLANES } from "./grid.js";
import { Intensities } from "./intensities.js";
import { LabelMap } from "./label-map.js";
import { LabelStyle } from "./label-style.js";
import { turnSlice } from "./single-slice.js";
import { Tile } from "./tile.js";

/**
 * @typedef {import("../types.js").ImageMeta} ImageMeta
 * @typedef {import("../types.js").Plane} Plane
 * @typedef {import("../types.js").View} View
 * @typedef {import("../types.js").Voxel} Voxel
 */

const SLICE_TYPES = { axial: 0, coronal: 1, sagittal: 2, multi: 3 }; // NiiVue's
/** @type {Plane[]} */
const PLANE_OF_TYPE = ["axial", "coronal", "sagittal"];
const NEVER = 0;
const [SMALLEST, LARGEST] = [0.5, 40]; // zoom

export class Viewer {
  /** @param {HTMLCanvasElement} canvas NiiVue's; this class reads no mouse and no keys */
  constructor(canvas) {
    this.canvas = canvas;
    /** @type {ImageMeta | null} of the open image */
    this.meta = null;
    /** @type {Grid | null} */
    this.grid = null;
    /** @type {View} */
    this.view = "axial";
    this.onDraw = () => {};
    this.nv = new Niivue({
      isRadiologicalConvention: true,
      sagittalNoseLeft: true,
      showAllOrientationMarkers: true,
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
    this.labels = new LabelMap(this.nv);
    this.style = new LabelStyle();
    this.intensities = new Intensities(this.nv);
  }

  async attach() {
    await this.nv.attachToCanvas(this.canvas, false);
    this.nv.drawLut = this.style.lookupTable();
    this.nv.drawOpacity = 0.4;
    const flat = this.nv.rgbaTex2D.bind(this.nv);
    // NiiVue forgets the texture of a large grey picture, and would leave one behind at each change of the window
    this.nv.rgbaTex2D = (...given) => (this.nv.volumeTexture = flat(...given));
    const draw = this.nv.drawScene.bind(this.nv);
    this.nv.drawScene = () => {
      draw();
      this.onDraw();
    };
  }

  /**
   * Show an image.
   * @param {ArrayBuffer} buffer its NIfTI file
   * @param {ImageMeta} meta
   */
  async open(buffer, meta) {
    const turned = meta.shape[2] === 1 ? turnSlice(buffer, meta.shape, meta.affine) : null;
    const [low, high] = meta.window;
    // @ts-expect-error NiiVue's types ask for arguments that have defaults
    const image = await NVImage.new(turned?.buffer ?? buffer, "image.nii", "gray", 1, null, low, high);
    this.close();
    this.nv.opts.isOrientationTextVisible = !turned;
    this.nv.scene.pan2Dxyzmm = [0, 0, 0, 1];
    this.nv.addVolume(image);
    this.nv.createEmptyDrawing();
    this.grid = turned?.grid ?? new Grid(meta.shape, image.permRAS);
    this.meta = meta;
    this.style.reset();
    this.labels.begin(this.grid);
    this.nv.scene.crosshairPos = triple(this.grid.shown.map((size) => (Math.floor(size / 2) + 0.5) / size));
    this.nv.volumes[0].cal_min = low;
    this.nv.volumes[0].cal_max = high;
    this.show(this.drawingPlane);
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

  /** Colours of labels have changed, or labels are hidden or shown. */
  restyle() {
    this.nv.drawLut = this.style.lookupTable();
    this.nv.refreshColormaps();
    if (this.meta) this.nv.drawScene();
  }

  /** Whether the image has one slice only. */
  get isFlat() {
    return this.meta?.shape[2] === 1;
  }

  /** @param {View} view */
  show(view) {
    this.view = view;
    this.nv.opts.crosshairWidth = view === "multi" ? 0.25 : 0;
    if (this.nv.crosshairs3D) this.nv.crosshairs3D.mm[0] = NaN; // NiiVue makes it again then
    this.nv.setSliceType(SLICE_TYPES[view]);
  }

  /** The plane in which boxes, scribbles and lassos are drawn. */
  get drawingPlane() {
    return PLANES[this.grid.depth];
  }

  /**
   * Index of the slice that is shown, along the shown axis across the plane.
   * @param {Plane} plane
   */
  slice(plane) {
    const axis = PLANES.indexOf(plane);
    const size = this.grid.shown[axis];
    return Math.min(size - 1, Math.max(0, Math.floor(this.nv.scene.crosshairPos[axis] * size)));
  }

  /**
   * Number of slices of a plane.
   * @param {Plane} plane
   */
  sliceCount(plane) {
    return this.grid.shown[PLANES.indexOf(plane)];
  }

  /** @param {number} value of a colour picture, which has no window; 1 as it is stored */
  set brightness(value) {
    this.canvas.style.filter = value === 1 ? "" : `brightness(${value})`;
  }

  /**
   * @param {Plane} plane
   * @param {number} index the nearest slice is taken
   */
  setSlice(plane, index) {
    const axis = PLANES.indexOf(plane);
    const size = this.grid.shown[axis];
    this.nv.scene.crosshairPos[axis] = (Math.min(size - 1, Math.max(0, index)) + 0.5) / size;
    this.nv.drawScene();
  }

  /**
   * Move all planes to a voxel.
   * @param {Voxel} voxel
   */
  goTo(voxel) {
    const shown = this.grid.toShown(voxel);
    this.nv.scene.crosshairPos = triple(shown.map((value, axis) => (value + 0.5) / this.grid.shown[axis]));
    this.nv.drawScene();
  }

  /**
   * @param {number} factor
   * @param {Tile} tile
   * @param {number} x place on the screen that stays where it is
   * @param {number} y
   */
  zoom(factor, tile, x, y) {
    const [px, py, pz, before] = this.nv.scene.pan2Dxyzmm;
    const after = Math.min(LARGEST, Math.max(SMALLEST, before * factor));
    const pan = [px, py, pz];
    const fraction = tile.fraction(x, y);
    tile.axes.forEach((axis, at) => {
      pan[axis] += (tile.low[at] + fraction[at] * tile.extent[at]) * (before - after);
    });
    this.nv.setPan2Dxyzmm([pan[0], pan[1], pan[2], after]);
  }

  /**
   * @param {Tile} tile
   * @param {number} dx pixels on the screen
   * @param {number} dy
   */
  pan(tile, dx, dy) {
    const [px, py, pz, zoom] = this.nv.scene.pan2Dxyzmm;
    const pan = [px, py, pz];
    const moved = [dx / tile.width, -dy / tile.height];
    tile.axes.forEach((axis, at) => (pan[axis] += moved[at] * tile.extent[at] * zoom));
    this.nv.setPan2Dxyzmm([pan[0], pan[1], pan[2], zoom]);
  }

  fit() {
    this.nv.setPan2Dxyzmm([0, 0, 0, 1]);
  }

  /** The planes on the screen. */
  tiles() {
    if (!this.grid) return [];
    const pixels = this.canvas.width / this.canvas.clientWidth;
    const toMm = this.nv.volumes[0].frac2mmOrtho;
    const edges = this.grid.shown.map((size, axis) => toMm[5 * axis] / size);
    return this.nv.screenSlices
      .filter((slice) => slice.axCorSag in PLANE_OF_TYPE)
      .map((slice) => {
        const plane = PLANE_OF_TYPE[slice.axCorSag];
        return new Tile(plane, this.slice(plane), this.grid, {
          rectangle: slice.leftTopWidthHeight.map((value) => value / pixels),
          low: slice.leftTopMM,
          extent: slice.fovMM,
          origin: [toMm[12], toMm[13], toMm[14]],
          edges,
        });
      });
  }

  /**
   * The plane under a place on the screen.
   * @param {number} x
   * @param {number} y
   */
  tileAt(x, y) {
    return this.tiles().find((tile) => tile.holds(x, y));
  }

  /** Wait until the graphics card has drawn. */
  settle() {
    const { gl } = this.nv;
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
  }
}

/**
 * @param {number[]} values
 * @returns {[number, number, number]}
 */
const triple = ([x, y, z]) => [x, y, z];
