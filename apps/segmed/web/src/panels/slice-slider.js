/** A slider beside the image for the slice of the plane that is shown, for those without a wheel. */
import { find, input } from "./dom.js";

export class SliceSlider {
  /** @param {import("../image/viewer.js").Viewer} viewer */
  constructor(viewer) {
    this.viewer = viewer;
    this.field = input("#slice");
    this.field.addEventListener("input", () => viewer.setSlice(this.#plane, this.field.valueAsNumber));
  }

  /** The plane that the slider moves: the one that is shown alone. */
  get #plane() {
    return /** @type {import("../types.js").Plane} */ (this.viewer.view);
  }

  /** The planes have been drawn again. */
  show() {
    const isUseful = Boolean(this.viewer.meta) && !this.viewer.isFlat && this.viewer.view !== "multi";
    find("#slice-slider").hidden = !isUseful;
    if (!isUseful) return;
    const plane = this.#plane;
    const [index, count] = [this.viewer.slice(plane), this.viewer.sliceCount(plane)];
    this.field.max = String(count - 1);
    if (this.field.valueAsNumber !== index) this.field.value = String(index);
    const words = `${plane} slice ${index + 1} of ${count}`;
    if (this.field.ariaValueText !== words) this.field.ariaValueText = words;
  }
}
