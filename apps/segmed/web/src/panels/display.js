/** How the image is shown: planes, window, brightness, inversion, opacity of the mask. */
import { element, find, findAll, input, onClick } from "./dom.js";
import { fromWidthLevel, presets, toWidthLevel } from "./window-level.js";

/** @typedef {import("../types.js").View} View */

const OWN = "own"; // a window that has no name

export class DisplayPanel {
  /** @param {import("../image/viewer.js").Viewer} viewer */
  constructor(viewer) {
    this.viewer = viewer;
    this.windows = find("#window", HTMLSelectElement);
    this.opacity = input("#opacity");
    this.opacityBefore = this.opacity.value; // it was hidden
    this.opacity.addEventListener("input", () => this.#showOpacity(this.opacity.value));
    this.windows.addEventListener("change", () => this.#take(this.windows.value));
    for (const field of [input("#window-width"), input("#window-level")]) {
      field.addEventListener("change", () => this.#takeNumbers());
      field.addEventListener("keydown", (event) => event.key === "Enter" && field.blur());
    }
    input("#brightness").addEventListener("input", () => this.#brighten(Number(input("#brightness").value)));
    onClick("#invert", () => this.invert());
    onClick("#reset", () => this.reset());
    for (const one of viewButtons()) {
      one.addEventListener("click", () => this.setView(/** @type {View} */ (one.dataset.view)));
    }
  }

  /** Another image is open. */
  show() {
    this.#showView();
    const { intensities, meta } = this.viewer;
    const { isColour, range } = intensities;
    this.presets = presets({ window: meta.window, range, isColour });
    this.windows.replaceChildren(
      ...this.presets.map(([name, its]) => element("option", { value: its.join(" ") }, name)),
      element("option", { value: OWN, hidden: true }, "Own window"),
    );
    find("#grey-values").hidden = isColour;
    find("#colour-values").hidden = !isColour;
    this.#brighten(1);
    this.#showInverted();
    this.showWindow();
  }

  /** The window has changed, by whatever means. */
  showWindow() {
    const { meta, intensities } = this.viewer;
    if (!meta || intensities.isColour) return;
    const [width, level] = toWidthLevel(intensities.window);
    for (const [selector, value] of /** @type {[string, number][]} */ ([
      ["#window-width", width],
      ["#window-level", level],
    ])) {
      const field = input(selector);
      if (document.activeElement !== field) field.value = String(value);
    }
    const now = intensities.window;
    const near = (/** @type {number} */ a, /** @type {number} */ b) => Math.abs(a - b) <= 1e-3 * (now[1] - now[0]);
    const named = this.presets?.find(([, range]) => range.every((value, at) => near(value, now[at])));
    const value = named ? named[1].join(" ") : OWN;
    if (this.windows.value !== value) this.windows.value = value;
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

  /** Black becomes white, and the other way round. */
  invert() {
    const { meta, intensities } = this.viewer;
    if (!meta || intensities.isColour) return;
    intensities.isInverted = !intensities.isInverted;
    this.#showInverted();
  }

  /** Window, brightness, inversion, zoom and place of the image as they were when it was opened. */
  reset() {
    const { meta, intensities } = this.viewer;
    if (!meta) return;
    if (intensities.isInverted) this.invert();
    if (intensities.isColour) this.#brighten(1);
    else intensities.window = [meta.window[0], meta.window[1]];
    this.viewer.fit();
    this.showWindow();
  }

  /** @param {string} range values shown black and white */
  #take(range) {
    if (!this.viewer.meta || range === OWN) return;
    const [low, high] = range.split(" ").map(Number);
    this.viewer.intensities.window = [low, high];
    this.showWindow();
  }

  #takeNumbers() {
    const [width, level] = ["#window-width", "#window-level"].map((one) => input(one).valueAsNumber);
    if (this.viewer.meta && width > 0 && Number.isFinite(level)) {
      this.viewer.intensities.window = fromWidthLevel(width, level);
    }
    this.showWindow();
  }

  /** @param {number} value 1 as it is stored */
  #brighten(value) {
    input("#brightness").value = String(value);
    this.viewer.brightness = value;
  }

  #showInverted() {
    find("#invert").ariaPressed = String(this.viewer.intensities.isInverted);
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
