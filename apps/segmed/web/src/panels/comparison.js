/** Several models on the prompt of the open object: which, their outlines over each other, and the one that is taken. */
import { css } from "../image/colours.js";
import { SLICES, promptPlane } from "../image/planes.js";
import { tryModel } from "../work/trial.js";
import { showBusy } from "./busy.js";
import { element, find, findAll, onClick, swatch } from "./dom.js";
import { say } from "./messages.js";

const FIRST_COLOUR = 2; // the label itself mostly has the first

/**
 * @typedef {import("../types.js").Prompt} Prompt
 * @typedef {import("../overlay/overlay.js").Outline & {model: string, voxels: number}} Result
 *
 * @typedef {object} ComparisonParts of the page
 * @property {import("../work/work.js").Work} work
 * @property {import("../overlay/overlay.js").Overlay} overlay
 * @property {import("../image/viewer.js").Viewer} viewer
 * @property {import("./models.js").ModelPanel} models
 * @property {import("./labels.js").LabelPanel} labels
 * @property {import("./user.js").UserPanel} user
 */

export class Comparison {
  /** @param {ComparisonParts} parts */
  constructor(parts) {
    this.parts = parts;
    onClick("#compare", () => this.#ask());
    onClick("#try", () => this.#run());
    onClick("#close", () => this.close());
  }

  close() {
    this.#show([]);
  }

  /** The prompt of the open object, with its plane. */
  get #prompt() {
    const { work, viewer } = this.parts;
    const { prompt } = work.state;
    return { ...prompt, ...promptPlane(viewer.meta, prompt.axis ?? SLICES) };
  }

  /** Which models? */
  #ask() {
    const { models, viewer } = this.parts;
    const dimension = models.chosenModel?.dimension;
    find("#candidates").replaceChildren(
      ...models.usable(viewer.isFlat).map((one) => {
        const box = element("input", { type: "checkbox", value: one.name, checked: one.dimension === dimension });
        return element("label", { title: one.description }, box, one.name);
      }),
    );
    find("#choice", HTMLDialogElement).showModal();
  }

  async #run() {
    const { work, user, labels } = this.parts;
    const prompt = this.#prompt;
    if (!prompt.box && !prompt.foreground?.length) {
      say("Draw a box or click first: the models are compared on the prompt of the open object.");
      return;
    }
    const chosen = findAll("#candidates input", HTMLInputElement).filter((one) => one.checked);
    find("#choice", HTMLDialogElement).close();
    /** @type {Result[]} */
    const results = [];
    for (const [at, { value: model }] of chosen.entries()) {
      showBusy("compare", `Trying ${model}`);
      try {
        const tried = await tryModel({ id: work.id, client: user.name, model, label: labels.name, prompt });
        results.push({ ...tried, colour: css(FIRST_COLOUR + at) });
      } catch (error) {
        say(`${model}: ${error.message}`, "error");
      }
      this.#show(results);
    }
    showBusy("compare", "");
  }

  /** @param {Result[]} results */
  #show(results) {
    const { overlay } = this.parts;
    overlay.outlines = results;
    find("#comparison").hidden = !results.length;
    find("#results").replaceChildren(
      ...results.map((result) => {
        const box = element("input", { type: "checkbox", checked: true });
        box.addEventListener("change", () => {
          const boxes = findAll("#results input", HTMLInputElement);
          overlay.outlines = results.filter((_, at) => boxes[at].checked);
          overlay.draw();
        });
        const count = element("small", {}, `${result.voxels} ${this.parts.viewer.isFlat ? "px" : "voxels"}`);
        const use = element("button", { type: "button", title: "Segment with this model" }, "Use");
        use.addEventListener("click", () => this.#take(result.model));
        return element("li", {}, element("label", {}, box, swatch(result.colour), result.model, count), use);
      }),
    );
    overlay.draw();
  }

  /** @param {string} model */
  #take(model) {
    const { models, labels, work } = this.parts;
    models.chosen = model;
    this.close();
    const { box, foreground, background } = this.#prompt;
    const { overwrite } = models;
    const { plane } = this.#prompt;
    const where = { ...(box ? { box } : {}), ...(plane ? { plane } : {}) };
    return work.prompt({ model, label: labels.name, overwrite, foreground, background, ...where });
  }
}
