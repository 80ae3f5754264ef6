/** A dialog with what can be done to one label: rename, colour, merge, delete; and its size. */
import { button, element, find, input, onClick } from "./dom.js";
import { volumeText } from "./labels.js";

/**
 * @typedef {import("./labels.js").LabelFacts} LabelFacts
 *
 * @typedef {object} LabelMenuParts of the page
 * @property {import("../work/work.js").Work} work
 * @property {import("./labels.js").LabelPanel} labels
 * @property {import("../image/label-style.js").LabelStyle} style
 */

const dialog = () => find("#label-menu", HTMLDialogElement);

export class LabelMenu {
  /** @type {LabelFacts | null} of the label that it is about */
  #facts = null;

  /** @param {LabelMenuParts} parts */
  constructor(parts) {
    this.parts = parts;
    onClick("#rename", () => this.#rename());
    onClick("#merge", () => this.#change({ action: "merge", to: find("#merge-into", HTMLSelectElement).value }));
    onClick("#delete-label", () => this.#change({ action: "delete" }));
    input("#new-name").addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      this.#rename();
    });
    input("#new-colour").addEventListener("change", () => {
      this.#change({ action: "recolour", colour: input("#new-colour").value });
    });
  }

  /** @param {LabelFacts} facts */
  open(facts) {
    const { work, style } = this.parts;
    this.#facts = facts;
    const { name, value, voxels, ml } = facts;
    const isLocked = style.locked.has(value);
    find("#label-menu h2").replaceChildren(element("bdi", {}, name));
    const size = voxels
      ? `${Number.isNaN(ml) ? "" : `${volumeText(ml)}, `}${voxels.toLocaleString()} voxels`
      : "no voxels yet";
    find("#label-facts").textContent = `${size}; value ${value}${isLocked ? "; locked: unlock it to change it" : ""}`;
    input("#new-name").value = name;
    input("#new-colour").value = style.hex(value);
    const others = Object.entries(work.state.labels).filter(([one, its]) => one !== name && !style.locked.has(its));
    const options = others.map(([one]) => element("option", { value: one }, one));
    find("#merge-into", HTMLSelectElement).replaceChildren(...options);
    button("#merge").disabled = isLocked || !others.length;
    button("#delete-label").disabled = isLocked;
    dialog().showModal();
    input("#new-name").select();
  }

  #rename() {
    const to = input("#new-name").value.trim();
    if (to && to !== this.#facts.name) return this.#change({ action: "rename", to });
    dialog().close();
    return Promise.resolve();
  }

  /** @param {{action: string, to?: string, colour?: string}} change */
  async #change(change) {
    const { work, labels } = this.parts;
    const { name } = this.#facts;
    const wasChosen = labels.name === name;
    dialog().close();
    const done = await work.changeLabel({ label: name, locked: labels.lockedNames(work.state.labels), ...change });
    if (done && wasChosen && change.to) labels.name = change.to;
  }
}
