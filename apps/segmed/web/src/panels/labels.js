/** The label that prompts and strokes are for, and the list of those that the image has, with what can be done to them. */
import { element, find, input } from "./dom.js";
import { patternSwatch } from "./pattern-swatch.js";

/**
 * @typedef {object} LabelFacts
 * @property {string} name
 * @property {number} value
 * @property {number} voxels
 * @property {number} ml NaN where the image is a single slice
 *
 * @typedef {object} LabelActions
 * @property {() => void} changed another label is chosen
 * @property {() => void} restyled labels are hidden, shown, locked or unlocked
 * @property {(facts: LabelFacts) => void} menu what else can be done to a label is to be shown
 */

export class LabelPanel {
  /**
   * @param {import("../image/label-style.js").LabelStyle} style
   * @param {LabelActions} actions
   */
  constructor(style, actions) {
    this.style = style;
    this.actions = actions;
    this.field = input("#label");
    this.field.addEventListener("input", () => actions.changed());
    this.field.addEventListener("keydown", (event) => event.key === "Enter" && this.field.blur());
    input("#instances").addEventListener("change", () => actions.changed());
  }

  get name() {
    return this.field.value.trim().normalize("NFC") || "object";
  }

  set name(name) {
    this.field.value = name;
    this.actions.changed();
  }

  /** Whether each object gets a label, and so a value, of its own. */
  get eachItsOwn() {
    return input("#instances").checked;
  }

  /**
   * Names of the labels whose voxels are to stay.
   * @param {Object<string, number>} labels values by name
   */
  lockedNames(labels) {
    return Object.keys(labels).filter((name) => this.style.locked.has(labels[name]));
  }

  /** @param {string[]} names that the server knows */
  offer(names) {
    if (!this.field.value) this.field.value = names[0] ?? "object";
    find("#known").replaceChildren(...names.map((value) => element("option", { value })));
  }

  /**
   * @param {LabelFacts[]} facts of the labels of the image
   * @param {number} value of the chosen label
   */
  show(facts, value) {
    const focused = /** @type {HTMLElement | null} */ (document.activeElement?.closest("#used button"));
    const [name, act] = [focused?.dataset.label, focused?.dataset.act];
    find("#used").replaceChildren(...facts.map((one) => this.#row(one)));
    const again = [...find("#used").querySelectorAll("button")].find(
      (one) => one.dataset.label === name && one.dataset.act === act,
    );
    again?.focus();
    find("#swatch").replaceChildren(patternSwatch(this.style.hex(value), this.style.dash(value)));
    const objects = facts.filter((one) => one.voxels).length;
    find("#label-count").textContent = objects > 1 ? `${objects} labels with voxels` : "";
  }

  /** @param {LabelFacts} facts */
  #row(facts) {
    const { name, value, voxels, ml } = facts;
    const { hidden, locked } = this.style;
    const chosen = this.#button("choose", name, `Go on with ${name}`, () => (this.name = name));
    const size = voxels ? element("small", { title: `${voxels.toLocaleString()} voxels` }, volumeText(ml, voxels)) : "";
    const written = element("bdi", {}, name);
    chosen.append(patternSwatch(this.style.hex(value), this.style.dash(value)), written, " ", size);
    chosen.ariaPressed = String(name === this.name);
    const row = element("li", { className: hidden.has(value) ? "hidden-label" : "" }, chosen);
    row.append(
      this.#toggle(
        "hide",
        facts,
        hidden,
        "Hide",
        "Show",
        "M1 10s3.500-6 9-6 9 6 9 6-3.500 6-9 6-9-6-9-6zM10 8v4M8 10h4",
      ),
      this.#toggle("lock", facts, locked, "Lock", "Unlock", "M5 9h10v8H5zM7 9V6a3 3 0 0 1 6 0v3"),
      this.#button("menu", name, `Rename, colour, merge or delete ${name}`, () => this.actions.menu(facts), "⋯"),
    );
    return row;
  }

  /**
   * @param {string} act
   * @param {LabelFacts} facts
   * @param {Set<number>} set of the values for which it is on
   * @param {string} on word for switching it on
   * @param {string} off
   * @param {string} path of the picture
   */
  #toggle(act, { name, value }, set, on, off, path) {
    const isOn = set.has(value);
    const one = this.#button(act, name, `${isOn ? off : on} ${name}`, () => {
      if (set.has(value)) set.delete(value);
      else set.add(value);
      this.actions.restyled();
    });
    one.ariaPressed = String(isOn);
    one.innerHTML = `<svg viewBox="0 0 20 20" aria-hidden="true"><path d="${path}"/>${isOn && act === "hide" ? '<path d="m3 17 14-14"/>' : ""}</svg>`;
    return one;
  }

  /**
   * @param {string} act
   * @param {string} name of the label
   * @param {string} title
   * @param {() => void} action
   * @param {string} text
   */
  #button(act, name, title, action, text = "") {
    const one = element("button", { type: "button", title }, text);
    one.dataset.label = name;
    one.dataset.act = act;
    if (act !== "choose") one.setAttribute("aria-label", title);
    one.addEventListener("click", action);
    return one;
  }
}

const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/**
 * The size of a label: its volume, or its pixels where it has none.
 * @param {number} ml
 * @param {number} voxels
 */
export function volumeText(ml, voxels = 0) {
  if (Number.isNaN(ml)) return `${SHORT.format(voxels)} px`;
  if (ml >= 100) return `${Math.round(ml)} ml`;
  return ml >= 0.1 ? `${ml.toFixed(1)} ml` : `${Number((1000 * ml).toPrecision(2))} mm³`;
}
