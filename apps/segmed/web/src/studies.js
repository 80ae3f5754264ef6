/** The list of images, and whether the studies can be reached; asks again by itself. */
import { get } from "./api.js";
import { element, find } from "./dom.js";

const WELL = 15_000; // ms between two looks at the state
const BADLY = 4_000;
const SHOWN = 500;

export class Studies {
  /** @param {object} does open(image), state(answer of GET api/state), client() */
  constructor(does) {
    this.does = does;
    this.images = [];
    this.chosen = null;
    this.line = "";
    find("#search").addEventListener("input", () => this.#show());
    find("#reload").addEventListener("click", () => this.refresh());
    find("#images").addEventListener("click", (event) => {
      const id = event.target.closest("button")?.dataset.id;
      const image = this.images.find((one) => one.id === id);
      if (image) this.does.open(image);
    });
  }

  /** Look at the state now, and from then on; the list is fetched again when the studies are back. */
  async watch() {
    clearTimeout(this.timer);
    const before = this.well;
    try {
      const state = await get("api/state");
      this.well = state.studies.state === "ok";
      this.does.state(state);
      this.#showLeftOut(state.studies.left_out ?? [], this.well ? state.studies.message : "");
      if (!this.well) this.#tell(state.studies.message || "The studies cannot be reached.", true);
      else if (!before) await this.#fetch();
    } catch (error) {
      this.well = false;
      this.#tell(error.message, true);
    }
    this.timer = setTimeout(() => this.watch(), this.well ? WELL : BADLY);
  }

  refresh() {
    this.well = false;
    return this.watch();
  }

  choose(id) {
    this.chosen = id;
    this.#show();
    find("#images [aria-current]")?.scrollIntoView({ block: "nearest" });
  }

  async #fetch() {
    this.images = await get(`api/images?client=${encodeURIComponent(this.does.client())}`);
    const done = this.images.filter((image) => image.labelled).length;
    this.#tell(`${this.images.length} images, ${done} labelled`, false);
    this.#show();
  }

  /** Mark an image as having unsaved work or none. */
  mark(id, unsaved) {
    const image = this.images.find((one) => one.id === id);
    if (!image || image.unsaved === unsaved) return;
    image.unsaved = unsaved;
    this.#show();
  }

  #tell(text, down) {
    const line = find("#state");
    line.textContent = down ? `${text} Trying again …` : text;
    line.classList.toggle("down", down);
  }

  /** What lies in the studies and is not in the list, each with its reason. */
  #showLeftOut(left, message) {
    const count = left.reduce((sum, one) => sum + one.count, 0);
    const title = left.length ? `${count} ${count === 1 ? "file is" : "files are"} left out` : message;
    const box = find("#left-out");
    box.hidden = !title;
    box.querySelector("summary").textContent = title;
    box.querySelector("ul").replaceChildren(
      ...left.map((one) => element("li", {}, `${one.name}: ${one.reason}`)),
    );
  }

  #show() {
    const words = find("#search").value.toLowerCase().split(/\s+/);
    const has = (image) => {
      const text = [image.name, image.id, image.modality, image.date].join(" ").toLowerCase();
      return words.every((word) => text.includes(word));
    };
    const found = this.images.filter(has);
    find("#images").replaceChildren(
      ...found.slice(0, SHOWN).map((image) => this.#row(image)),
      ...(found.length > SHOWN ? [element("p", {}, `and ${found.length - SHOWN} more: search for them`)] : []),
      ...(this.images.length && !found.length ? [element("p", {}, "Nothing has these words.")] : []),
    );
  }

  #row(image) {
    const about = [image.modality, image.date].filter(Boolean).join(" · ");
    const row = element("button", { type: "button", title: image.name || image.id });
    row.dataset.id = image.id;
    if (image.id === this.chosen) row.setAttribute("aria-current", "true");
    row.append(element("span", { className: "name" }, image.name || image.id));
    if (about) row.append(element("span", { className: "about" }, about));
    if (image.unsaved) row.append(element("span", { className: "unsaved", title: "has work of yours that is not saved" }, "●"));
    if (image.labelled) row.append(element("span", { className: "done", title: "has a final label" }, "✓"));
    return row;
  }
}
