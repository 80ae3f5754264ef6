/** Opening an image: from the list, or the one that is worth labelling next. */
import { showBusy } from "./panels/busy.js";
import { onClick } from "./panels/dom.js";
import { hidePreview, showPreview } from "./panels/preview.js";
import { say } from "./panels/messages.js";
import { showTitle } from "./panels/status.js";
import { ask, bytesOf, get, imagePath, post } from "./server/requests.js";

/**
 * @typedef {object} OpeningParts of the page
 * @property {import("./panels/studies.js").Studies} studies
 * @property {import("./image/viewer.js").Viewer} viewer
 * @property {import("./work/work.js").Work} work
 *
 * @typedef {object} OpeningActions
 * @property {() => string} client who works
 * @property {() => void} opened the viewer shows another image
 * @property {(label: string) => void} goOn an object of this label is still open
 * @property {(error: import("./server/requests.js").Failure) => void} fail
 */

export class Opening {
  #turn = 0; // the image that was asked for last is the one that is shown

  /**
   * @param {OpeningParts} parts
   * @param {OpeningActions} actions
   */
  constructor(parts, actions) {
    this.parts = parts;
    this.actions = actions;
    onClick("#next", () => this.openNext());
  }

  /** @param {import("./types.js").ImageEntry} image */
  async open({ id }) {
    const { studies, viewer, work } = this.parts;
    const turn = ++this.#turn;
    const isCurrent = () => turn === this.#turn;
    studies.choose(id);
    showBusy("open", "Opening");
    showPreview(imagePath(id, "/preview"));
    try {
      // first the voxels: when their answer begins, the server has read the image, and knows the rest without reading
      const voxels = await ask(imagePath(id, "/volume.nii"));
      /** @type {[import("./types.js").ImageMeta, ArrayBuffer]} */
      const [meta, buffer] = await Promise.all([
        get(imagePath(id)),
        bytesOf(voxels, (part) => {
          if (isCurrent()) showBusy("open", `Opening ${Math.round(100 * part)} %`);
        }),
      ]);
      if (!isCurrent()) return;
      work.close();
      await viewer.open(buffer, meta);
      hidePreview();
      showTitle(meta.name || meta.id);
      if (meta.note) say(meta.note, "warning");
      this.actions.opened();
      await work.open(meta.id);
      if (isCurrent() && work.state.prompt.label) this.actions.goOn(work.state.prompt.label);
    } catch (error) {
      if (isCurrent()) this.actions.fail(error);
    } finally {
      if (isCurrent()) {
        hidePreview();
        showBusy("open", "");
      }
    }
  }

  /** The image that the server's strategy for the next case names. */
  async openNext() {
    try {
      const { strategies } = await get("info/");
      const [strategy] = Object.keys(strategies);
      const path = `activelearning/${encodeURIComponent(strategy)}`;
      const sample = await post(path, { client_id: this.actions.client() });
      if (!sample.id) {
        say("There is no image left to label.");
        return;
      }
      await this.open(this.parts.studies.images.find((one) => one.id === sample.id) ?? { id: sample.id });
    } catch (error) {
      this.actions.fail(error);
    }
  }
}
