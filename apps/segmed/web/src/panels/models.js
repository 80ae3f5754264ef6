/** Models: the one that takes prompts, with its switches, and the automatic ones. */
import { button, element, find, input } from "./dom.js";

/**
 * @typedef {import("../types.js").Model} Model
 */

export class ModelPanel {
  constructor() {
    /** @type {Model[]} of the server */
    this.models = [];
    this.select = find("#model", HTMLSelectElement);
    this.automatic = find("#structures", HTMLSelectElement);
    this.select.addEventListener("change", () => this.#showAbout());
  }

  /** @param {(request: {model: string, overwrite: boolean}) => void} segment */
  onSegment(segment) {
    button("#segment").addEventListener("click", () =>
      segment({ model: this.automatic.value, overwrite: this.overwrite }),
    );
  }

  /** Name of the model that takes prompts; "" if there is none. */
  get chosen() {
    return this.select.value;
  }

  set chosen(name) {
    this.select.value = name;
    this.#showAbout();
  }

  /** Name of a model that takes prompts on a slice: the chosen one, or else the first. */
  get sliceModel() {
    if (this.chosenModel?.dimension === 2) return this.chosen;
    return this.usable(true)[0]?.name ?? this.chosen;
  }

  /** @returns {Model | undefined} */
  get chosenModel() {
    return this.models.find((one) => one.name === this.chosen);
  }

  /** Whether new objects take voxels of other labels. */
  get overwrite() {
    return input("#overwrite").checked;
  }

  /** Whether the next prompt starts from the present mask; for one prompt only. */
  takeRefine() {
    const { checked } = input("#refine");
    input("#refine").checked = false;
    return checked;
  }

  /**
   * Models that take prompts on an image.
   * @param {boolean} isFlat whether the image has one slice only
   */
  usable(isFlat) {
    return this.models.filter((one) => one.type === "prompt" && !(isFlat && one.dimension === 3));
  }

  /**
   * @param {Model[]} models of the server
   * @param {boolean} isFlat
   */
  offer(models, isFlat) {
    if (JSON.stringify(this.models) === JSON.stringify(models)) return;
    this.models = models;
    this.show(isFlat);
  }

  /** @param {boolean} isFlat whether the open image has one slice only */
  show(isFlat) {
    const prompted = this.usable(isFlat);
    const before = this.chosen;
    this.select.replaceChildren(
      ...optionGroup(
        "on the slice",
        prompted.filter((one) => one.dimension === 2),
      ),
      ...optionGroup(
        "through the volume",
        prompted.filter((one) => one.dimension === 3),
      ),
    );
    if (prompted.some((one) => one.name === before)) this.select.value = before;
    const automatic = this.models.filter((one) => one.type === "automatic");
    find("#automatic").hidden = !automatic.length;
    this.automatic.replaceChildren(...options(automatic));
    this.#showAbout();
  }

  #showAbout() {
    find("#about").textContent = this.chosenModel?.description ?? "";
  }
}

/** @param {Model[]} models */
const options = (models) =>
  models.map((one) => element("option", { value: one.name, title: one.description }, one.name));

/**
 * @param {string} label
 * @param {Model[]} models
 */
const optionGroup = (label, models) => (models.length ? [element("optgroup", { label }, ...options(models))] : []);
