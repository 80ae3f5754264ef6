/**
 * How labels look: their colours, patterns of their outlines, and which are hidden. Also which are locked, so that
 * everything that a user sets of a label without changing it is in one place.
 */
import { colour } from "./colours.js";

/** Dashes of outlines in pixels, by value: labels of like colours differ in these. */
const DASHES = [[], [7, 4], [2, 3], [10, 3, 2, 3], [4, 2, 4, 6], [14, 5]];

export class LabelStyle {
  /** @type {Map<number, number[]>} red, green, blue by value, where a label has a colour of its own */
  #own = new Map();
  /** Values that are not drawn. @type {Set<number>} */
  hidden = new Set();
  /** Values whose voxels stay as they are. @type {Set<number>} */
  locked = new Set();

  /** Another image: what was set of its labels is forgotten. */
  reset() {
    this.#own.clear();
    this.hidden.clear();
    this.locked.clear();
  }

  /**
   * Take over colours that are stored with labels; whether anything has changed.
   * @param {Object<string, number>} labels values by name
   * @param {Object<string, string>} colours as #rrggbb, by name
   */
  takeColours(labels, colours) {
    const before = JSON.stringify([...this.#own]);
    this.#own = new Map(
      Object.entries(colours)
        .filter(([name]) => labels[name])
        .map(([name, text]) => [labels[name], [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16))]),
    );
    const present = new Set(Object.values(labels));
    for (const set of [this.hidden, this.locked]) {
      for (const value of set) if (!present.has(value)) set.delete(value);
    }
    return before !== JSON.stringify([...this.#own]);
  }

  /** @param {number} value */
  colour(value) {
    return this.#own.get(value) ?? colour(value);
  }

  /**
   * The colour as CSS and fields for colours write it.
   * @param {number} value
   */
  hex(value) {
    return `#${this.colour(value)
      .map((part) => part.toString(16).padStart(2, "0"))
      .join("")}`;
  }

  /**
   * Pattern of the outline: lengths of dashes and gaps in pixels; empty for a solid line.
   * @param {number} value
   */
  dash(value) {
    return DASHES[(value - 1) % DASHES.length];
  }

  /** NiiVue's table: red, green, blue and opacity of 256 values; 0 and hidden labels are not drawn. */
  lookupTable() {
    const lut = new Uint8ClampedArray(1024);
    for (let value = 1; value < 256; value++) {
      if (!this.hidden.has(value)) lut.set([...this.colour(value), 255], 4 * value);
    }
    return { lut, labels: Array.from({ length: 256 }, (_, value) => String(value)) };
  }
}
