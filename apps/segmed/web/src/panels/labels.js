/** The label that prompts and strokes are for, and those that the image has already. */
import { css } from "../image/colours.js";
import { element, find, input, swatch } from "./dom.js";

export class LabelPanel {
  /** @param {() => void} changed another label is chosen */
  constructor(changed) {
    this.changed = changed;
    this.field = input("#label");
    this.field.addEventListener("input", changed);
    this.field.addEventListener("keydown", (event) => event.key === "Enter" && this.field.blur());
  }

  get name() {
    return this.field.value.trim().normalize("NFC") || "object";
  }

  /** @param {string[]} names that the server knows */
  offer(names) {
    if (!this.field.value) this.field.value = names[0] ?? "object";
    find("#known").replaceChildren(...names.map((value) => element("option", { value })));
  }

  /**
   * @param {Object<string, number>} labels values by name
   * @param {number} value of the chosen label
   */
  show(labels, value) {
    find("#used").replaceChildren(...Object.entries(labels).map(([name, its]) => this.#button(name, its)));
    find("#swatch").style.background = css(value);
  }

  /**
   * @param {string} name
   * @param {number} value
   */
  #button(name, value) {
    const one = element("button", { type: "button", title: `Go on with ${name}` }, swatch(css(value)), name);
    one.ariaPressed = String(name === this.name);
    one.addEventListener("click", () => {
      this.field.value = name;
      this.changed();
    });
    return one;
  }
}
