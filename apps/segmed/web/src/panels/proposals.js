/**
 * Proposed masks of everything on a slice: each is accepted or rejected by a click on the image or by its check box, and
 * the accepted ones are added in one step.
 */
import { css } from "../image/colours.js";
import { outlineOf } from "../overlay/cross-section.js";
import { decodeAll } from "../server/changes.js";
import { imagePath, post } from "../server/requests.js";
import { nextObject } from "../work/label-facts.js";
import { showBusy } from "./busy.js";
import { element, find, onClick } from "./dom.js";
import { say } from "./messages.js";

/**
 * @typedef {import("../types.js").LabelRectangle} LabelRectangle
 *
 * @typedef {object} Proposal
 * @property {object} change as it came, and goes back
 * @property {LabelRectangle} mask
 * @property {import("../overlay/cross-section.js").MaskOutline} outline
 * @property {number} voxels
 * @property {boolean} accepted
 *
 * @typedef {object} ProposalParts of the page
 * @property {import("../work/work.js").Work} work
 * @property {import("../overlay/overlay.js").Overlay} overlay
 * @property {import("../image/viewer.js").Viewer} viewer
 * @property {import("./models.js").ModelPanel} models
 * @property {import("./labels.js").LabelPanel} labels
 * @property {() => string} client who works
 */

const SURE = 0.8; // from this score on, a proposal is accepted at first

export class Proposals {
  /** @type {Proposal[]} */
  #found = [];

  /** @param {ProposalParts} parts */
  constructor(parts) {
    this.parts = parts;
    onClick("#propose", () => this.#ask());
    onClick("#take-proposals", () => this.#take());
    onClick("#accept-all", () => this.#setAll(true));
    onClick("#reject-all", () => this.#setAll(false));
    onClick("#close-proposals", () => this.close());
  }

  get isOpen() {
    return this.#found.length > 0;
  }

  close() {
    this.#show([]);
  }

  /**
   * A click on the image: the smallest proposal there changes sides; whether there is one.
   * @param {number[]} voxel stored
   */
  toggleAt([i, j, k]) {
    const there = this.#found.filter(({ mask }) => {
      const inside = mask.k === k && i >= mask.i[0] && i < mask.i[1] && j >= mask.j[0] && j < mask.j[1];
      return inside && mask.values[(j - mask.j[0]) * (mask.i[1] - mask.i[0]) + i - mask.i[0]] > 0;
    });
    const [first] = there.sort((a, b) => a.voxels - b.voxels);
    if (!first) return false;
    first.accepted = !first.accepted;
    this.#show(this.#found);
    return true;
  }

  async #ask() {
    const { viewer, models, work, client } = this.parts;
    const { id } = work;
    const plane = viewer.drawingPlane;
    const shown = viewer.tiles().find((tile) => tile.plane === plane);
    if (!shown) return say(`Show the ${plane} view first: objects are proposed on its slice.`);
    showBusy("propose", "Proposing objects");
    try {
      const k = shown.toStored(shown.left, shown.top)[2];
      const model = models.sliceModel;
      const { proposals } = await post(imagePath(id, "/proposals"), { client: client(), model, k });
      const masks = await decodeAll(proposals);
      if (work.id !== id) return;
      if (!masks.length) say("Nothing was found on this slice.");
      this.#show(
        masks.map((mask, at) => ({
          change: { k, i: mask.i, j: mask.j, data: proposals[at].data },
          mask,
          outline: outlineOf(mask),
          voxels: outlineOf(mask).voxels,
          accepted: proposals[at].score >= SURE,
        })),
      );
    } catch (error) {
      say(error.message, "error");
    } finally {
      showBusy("propose", "");
    }
  }

  /** @param {boolean} accepted */
  #setAll(accepted) {
    for (const one of this.#found) one.accepted = accepted;
    this.#show(this.#found);
  }

  async #take() {
    const { work, labels, models } = this.parts;
    const accepted = this.#found.filter((one) => one.accepted);
    const known = { ...work.state.labels };
    const objects = accepted.map(({ change }) => {
      const label = labels.eachItsOwn ? nextObject(known, labels.name) : labels.name;
      known[label] = 0;
      return { label, changes: [change] };
    });
    const { overwrite } = models;
    if (await work.addObjects({ objects, overwrite, locked: labels.lockedNames(work.state.labels) })) this.close();
  }

  /** @param {Proposal[]} found */
  #show(found) {
    const { overlay } = this.parts;
    this.#found = found;
    const count = found.filter((one) => one.accepted).length;
    find("#proposals").hidden = !found.length;
    find("#proposal-count").textContent = `${count} of ${found.length} accepted`;
    find("#take-proposals", HTMLButtonElement).disabled = !count;
    overlay.outlines = found.map(({ outline, mask, accepted }, at) => ({
      colour: accepted ? css(at + 1) : "#c3ccd5",
      dash: accepted ? [] : [2, 4],
      mark: accepted ? "✓" : "×",
      at: middle(mask),
      outline,
    }));
    find("#proposal-list").replaceChildren(
      ...found.map((one, at) => {
        const box = element("input", { type: "checkbox", checked: one.accepted });
        box.addEventListener("change", () => {
          one.accepted = box.checked;
          this.#show(this.#found);
          find("#proposal-list").querySelectorAll("input")[at]?.focus();
        });
        const size = element("small", {}, `${one.voxels} ${this.parts.viewer.isFlat ? "px" : "voxels"}`);
        return element("li", {}, element("label", {}, box, `Object ${at + 1}`, size));
      }),
    );
    overlay.draw();
  }
}

/**
 * A voxel of a mask near its middle, as stored [i, j, k].
 * @param {LabelRectangle} mask
 */
function middle({ k, i, j, values }) {
  const width = i[1] - i[0];
  const inside = [...values.keys()].filter((at) => values[at]);
  const at = inside[Math.floor(inside.length / 2)];
  return [i[0] + (at % width), j[0] + Math.floor(at / width), k];
}
