/** The list of images, and whether the studies can be reached; asks again by itself. */
import { SILENCE, get } from "../server/requests.js";
import { element, find, input, onClick } from "./dom.js";
import { unsay } from "./messages.js";

/**
 * @typedef {import("../types.js").ImageEntry} ImageEntry
 * @typedef {import("../types.js").LeftOut} LeftOut
 * @typedef {import("../types.js").ServerState} ServerState
 *
 * @typedef {object} StudiesActions
 * @property {(image: ImageEntry) => void} open
 * @property {(state: ServerState) => void} state of the server
 * @property {() => string} client who works
 */

const WELL = 15_000; // ms between two looks at the state, as the server calls nobody
const BADLY = 4_000;
const SHOWN = 500; // images at most

export class Studies {
  #timer = 0;
  #well = false; // whether the studies could be reached

  /** @param {StudiesActions} actions */
  constructor(actions) {
    this.actions = actions;
    /** @type {ImageEntry[]} */
    this.images = [];
    /** @type {string | null} id of the open image */
    this.chosen = null;
    input("#search").addEventListener("input", () => this.#show());
    onClick("#reload", () => this.refresh());
    find("#images").addEventListener("click", (event) => {
      const id = /** @type {Element} */ (event.target).closest("button")?.dataset.id;
      const image = this.images.find((one) => one.id === id);
      if (image) this.actions.open(image);
    });
  }

  /** Look at the state now, and from then on; the list is fetched again when the studies are back. */
  async watch() {
    clearTimeout(this.#timer);
    const before = this.#well;
    try {
      /** @type {ServerState} */
      const state = await get("api/state");
      this.#well = state.studies.state === "ok";
      unsay(SILENCE);
      this.actions.state(state);
      showLeftOut(state.studies.left_out ?? [], this.#well ? state.studies.message : "");
      if (!this.#well) tell(state.studies.message || "The studies cannot be reached.", true);
      else if (!before) await this.#fetch();
    } catch (error) {
      this.#well = false;
      tell(error.message, true);
    }
    this.#timer = window.setTimeout(() => this.watch(), this.#well ? WELL : BADLY);
  }

  /** Fetch the list again. */
  refresh() {
    this.#well = false;
    return this.watch();
  }

  /**
   * Mark an image as the open one.
   * @param {string} id
   */
  choose(id) {
    this.chosen = id;
    this.#show();
    document.querySelector("#images [aria-current]")?.scrollIntoView({ block: "nearest" });
  }

  /**
   * Mark an image as having unsaved work or none.
   * @param {string} id
   * @param {boolean} unsaved
   */
  mark(id, unsaved) {
    const image = this.images.find((one) => one.id === id);
    if (!image || image.unsaved === unsaved) return;
    image.unsaved = unsaved;
    this.#show();
  }

  async #fetch() {
    this.images = await get(`api/images?client=${encodeURIComponent(this.actions.client())}`);
    const done = this.images.filter((image) => image.labelled).length;
    const count = this.images.length;
    tell(`${count} ${count === 1 ? "image" : "images"}, ${done} labelled`, false);
    this.#show();
  }

  #show() {
    const found = this.images.filter((image) => matches(image, input("#search").value));
    find("#images").replaceChildren(
      ...found.slice(0, SHOWN).map((image) => row(image, image.id === this.chosen)),
      ...(found.length > SHOWN ? [element("p", {}, `and ${found.length - SHOWN} more: search for them`)] : []),
      ...(this.images.length && !found.length ? [element("p", {}, "Nothing has these words.")] : []),
    );
  }
}

/**
 * Whether what is told of an image holds all words.
 * @param {ImageEntry} image
 * @param {string} words
 */
export function matches({ name, id, modality, date, patient, patient_id, labelled_by }, words) {
  const text = [name, id, modality, date, patient, patient_id, labelled_by].join(" ").toLowerCase();
  return words
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
}

/**
 * @param {string} text
 * @param {boolean} down whether the studies cannot be reached
 */
function tell(text, down) {
  const line = find("#state");
  line.textContent = down ? `${text} Trying again …` : text;
  line.classList.toggle("down", down);
}

/**
 * What lies in the studies and is not in the list, each with its reason.
 * @param {LeftOut[]} left
 * @param {string} message where nothing is left out
 */
function showLeftOut(left, message) {
  const count = left.reduce((sum, one) => sum + one.count, 0);
  const title = left.length ? `${count} ${count === 1 ? "file is" : "files are"} left out` : message;
  find("#left-out").hidden = !title;
  find("#left-out summary").textContent = title;
  find("#left-out ul").replaceChildren(...left.map((one) => element("li", {}, `${one.name}: ${one.reason}`)));
}

/**
 * @param {ImageEntry} image
 * @param {boolean} isOpen
 */
function row({ id, name, modality, date, patient, patient_id, slices, unsaved, labelled, labelled_by }, isOpen) {
  const whose = [patient, patient_id].filter(Boolean).join(" · ");
  const count = slices ? `${slices} image${slices === 1 ? "" : "s"}` : "";
  const about = [modality, date, count, labelled_by && `labelled by ${labelled_by}`].filter(Boolean).join(" · ");
  const one = element("button", { type: "button", title: [whose, name || id, about].filter(Boolean).join("\n") });
  one.dataset.id = id;
  if (isOpen) one.setAttribute("aria-current", "true");
  if (whose) one.append(element("bdi", { className: "patient" }, whose));
  one.append(element("bdi", { className: "name" }, name || id));
  if (about) one.append(element("span", { className: "about" }, about));
  if (unsaved) one.append(sign("unsaved", "●", "has work of yours that is not saved"));
  if (labelled) {
    one.append(sign("done", "✓", labelled_by ? `has a final label by ${labelled_by}` : "has a final label"));
  }
  return one;
}

/**
 * @param {string} className
 * @param {string} text
 * @param {string} title
 */
function sign(className, text, title) {
  const one = element("span", { className, title, role: "img" }, text);
  one.setAttribute("aria-label", title);
  return one;
}
