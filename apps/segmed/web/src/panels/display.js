/** How the image is shown: planes, window, opacity of the mask. */
import { element, find, findAll, input } from "./dom.js";

/** @typedef {import("../types.js").View} View */

const CT_WINDOWS = { "Soft tissue": [-160, 240], Lung: [-1350, 150], Bone: [-500, 1300], Brain: [0, 80] }; // HU
const AIR = -500; // HU; CT has values below

export class DisplayPanel {
  /** @param {import("../image/viewer.js").Viewer} viewer */
  constructor(viewer) {
    this.viewer = viewer;
    this.windows = find("#window", HTMLSelectElement);
    this.opacity = input("#opacity");
    this.opacityBefore = this.opacity.value; // it was hidden
    this.opacity.addEventListener("input", () => this.#showOpacity(this.opacity.value));
    this.windows.addEventListener("change", () => {
      const [low, high] = this.windows.value.split(" ").map(Number);
      if (viewer.meta) viewer.intensities.window = [low, high];
    });
    for (const one of viewButtons()) {
      one.addEventListener("click", () => this.setView(/** @type {View} */ (one.dataset.view)));
    }
  }

  /** Another image is open. */
  show() {
    this.#showView();
    const { intensities, meta } = this.viewer;
    const isCt = intensities.range[0] <= AIR && !intensities.isColour;
    const choices = { "Default window": meta.window, ...(isCt ? CT_WINDOWS : {}), "Full range": intensities.range };
    this.windows.replaceChildren(
      ...Object.entries(choices).map(([name, range]) => element("option", { value: range.join(" ") }, name)),
    );
    this.windows.disabled = intensities.isColour;
  }

  /** @param {View} view */
  setView(view) {
    if (!this.viewer.meta || this.viewer.isFlat) return;
    this.viewer.show(view);
    this.#showView();
  }

  /** Hide the mask, or show it again. */
  toggleMask() {
    const shown = Number(this.opacity.value);
    if (shown) this.opacityBefore = this.opacity.value;
    this.#showOpacity(shown ? "0" : this.opacityBefore);
  }

  #showView() {
    for (const one of viewButtons()) one.ariaPressed = String(one.dataset.view === this.viewer.view);
    find("#views").hidden = this.viewer.isFlat;
  }

  /** @param {string} value */
  #showOpacity(value) {
    this.opacity.value = value;
    this.viewer.labels.opacity = Number(value);
  }
}

const viewButtons = () => findAll("[data-view]", HTMLButtonElement);
