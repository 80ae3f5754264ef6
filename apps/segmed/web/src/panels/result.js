/** What becomes of the work: saving, former labels, downloads. */
import { download, imagePath } from "../server/requests.js";
import { button, onClick } from "./dom.js";
import { showFormer } from "./former.js";
import { say } from "./messages.js";

/** By the buttons that fetch them; the last two need a DICOM series. */
const FORMATS = { "#nifti": "nifti", "#names-table": "names", "#nrrd": "nrrd", "#seg": "seg", "#rtstruct": "rtstruct" };
const OF_A_SERIES = ["#seg", "#rtstruct"];
const MOST = 8; // labels that are listed after saving

/**
 * @typedef {object} ResultActions
 * @property {() => string} client who works
 * @property {() => Promise<void>} saved the list of images is to be fetched again
 * @property {(error: import("../server/requests.js").Failure) => void} fail
 */

export class ResultPanel {
  /**
   * @param {import("../work/work.js").Work} work
   * @param {ResultActions} actions
   */
  constructor(work, actions) {
    this.work = work;
    this.actions = actions;
    const { fail } = actions;
    onClick("#save", () => this.#save());
    onClick("#former", () => showFormer(work.id, { restored: () => this.#restored(), fail }));
    for (const [selector, format] of Object.entries(FORMATS)) {
      onClick(selector, () => download(this.#path(format)).catch(fail));
    }
  }

  /** @param {boolean} isSeries whether the open image is a DICOM series */
  show(isSeries) {
    for (const selector of OF_A_SERIES) {
      const one = button(selector);
      one.disabled = !isSeries;
      one.title = !isSeries && this.work.id ? "Needs a DICOM series; this image is none" : "";
    }
  }

  /** @param {string} format */
  #path(format) {
    return imagePath(this.work.id, `/download?client=${encodeURIComponent(this.actions.client())}&format=${format}`);
  }

  async #save() {
    const saved = await this.work.save();
    if (!saved) return;
    const counts = Object.entries(saved.voxels).map(([name, count]) => `${name} ${count}`);
    const told = counts.length > MOST ? ` ${counts.length} labels.` : ` Voxels: ${counts.join(", ")}.`;
    const what = counts.length ? told : "";
    say((saved.note || (saved.seg ? "Saved, and written to the studies as DICOM SEG." : "Saved.")) + what);
    if (saved.differs) say(saved.differs, "warning");
    await this.actions.saved();
  }

  async #restored() {
    await this.work.reload();
    const { unsaved } = this.work.state;
    say(`The former label is the final one again.${unsaved ? " Your unsaved work on this image stays." : ""}`);
    await this.actions.saved();
  }
}
