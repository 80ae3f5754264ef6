/** The labels of the image as surfaces that can be turned, in a dialog with a NiiVue of its own. */
import { NVMesh, Niivue } from "@niivue/niivue";
import { colour, css } from "../image/colours.js";
import { ask, imagePath } from "../server/requests.js";
import { showBusy } from "./busy.js";
import { element, find, onClick, swatch } from "./dom.js";

const RENDERING = 4; // NiiVue's kind of view
const DIM = 0.15; // opacity of a label that is switched off in the list

/**
 * @typedef {object} SurfaceActions
 * @property {() => {id: string, client: string, labels: [string, number][]}} shown the image, and its labels that have
 *   voxels
 * @property {(error: Error) => void} fail
 */

export class SurfaceView {
  /** @type {Niivue | null} */
  #nv = null;

  /** @param {SurfaceActions} actions */
  constructor(actions) {
    this.actions = actions;
    this.dialog = find("#surface", HTMLDialogElement);
    onClick("#show-surface", () => this.#open());
    this.dialog.addEventListener("close", () => this.#empty());
  }

  async #open() {
    const { id, client, labels } = this.actions.shown();
    showBusy("surface", "Making surfaces");
    try {
      if (!labels.length) throw new Error("There is nothing to show in 3-D. Segment an object first.");
      const query = (/** @type {string} */ name) => `/surface.gii?${new URLSearchParams({ client, name })}`;
      const files = await Promise.all(
        labels.map(async ([name]) => (await ask(imagePath(id, query(name)))).arrayBuffer()),
      );
      this.dialog.showModal();
      const nv = await this.#niivue();
      for (const [at, [name, value]] of labels.entries()) {
        const rgba = new Uint8Array([...colour(value), 255]);
        nv.addMesh(await NVMesh.readMesh(files[at], `${name}.gii`, nv.gl, 1, rgba));
      }
      this.#list(labels);
      nv.setSliceType(RENDERING);
      this.dialog.dataset.triangles = String(nv.meshes.reduce((sum, mesh) => sum + mesh.indexCount / 3, 0));
    } catch (error) {
      this.dialog.close();
      this.actions.fail(error);
    } finally {
      showBusy("surface", "");
    }
  }

  async #niivue() {
    if (!this.#nv) {
      this.#nv = new Niivue({ backColor: [0.04, 0.05, 0.06, 1], show3Dcrosshair: false, logLevel: "error" });
      this.#nv.opts.isOrientationTextVisible = true;
      await this.#nv.attachToCanvas(find("#surface canvas", HTMLCanvasElement));
    }
    return this.#nv;
  }

  /** @param {[string, number][]} labels */
  #list(labels) {
    find("#surface ul").replaceChildren(
      ...labels.map(([name, value], at) => {
        const box = element("input", { type: "checkbox", checked: true });
        box.addEventListener("change", () => {
          this.#nv.meshes[at].opacity = box.checked ? 1 : DIM;
          this.#nv.drawScene();
        });
        return element("li", {}, element("label", {}, box, swatch(css(value)), name));
      }),
    );
  }

  #empty() {
    for (const mesh of [...(this.#nv?.meshes ?? [])]) this.#nv.removeMesh(mesh);
    delete this.dialog.dataset.triangles;
  }
}
