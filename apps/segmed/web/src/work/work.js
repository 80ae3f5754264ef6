/** What the user does with the open image, as the server keeps it. */
import { linesOf } from "../overlay/drawn-lines.js";
import { decodeAll, encode } from "../server/changes.js";
import { get, imagePath, post } from "../server/requests.js";
import { postWatched } from "../server/stream.js";
import { difference, rectangles, valueOf, voxelsByName } from "./label-edits.js";
import { RequestQueue } from "./request-queue.js";

/** @type {import("../types.js").WorkState} */
const NOTHING = { labels: {}, colours: {}, can_undo: false, can_redo: false, prompt: {}, unsaved: false };
const LOOK_EVERY = 4000; // ms between two looks at what other pages do
const ELSEWHERE = "Your work on this image was changed elsewhere, or the server was restarted. It is shown again.";
const BACK = "The server answers again. Your work is shown as it has it; repeat what is missing.";

export class Work {
  #astray = false; // whether something is shown that the server may not know

  /**
   * @param {import("../image/viewer.js").Viewer} viewer
   * @param {import("../types.js").WorkActions} actions
   */
  constructor(viewer, actions) {
    this.viewer = viewer;
    this.actions = actions;
    /** @type {string | null} of the open image */
    this.id = null;
    this.state = NOTHING;
    /** @type {import("../types.js").Prompt[]} on their way */
    this.pending = [];
    /** Seconds of the last request, from the press until the mask was drawn. */
    this.seconds = 0;
    this.queue = new RequestQueue(actions);
    setInterval(() => document.hidden || this.#look(), LOOK_EVERY); // the server calls nobody
    document.addEventListener("visibilitychange", () => document.hidden || this.#look());
  }

  /** The state that requests are meant for; the server refuses them if it is in another one. */
  get #belief() {
    const { revision, boot } = this.state;
    return { client: this.actions.client(), revision, boot };
  }

  /**
   * Begin with an image that the viewer shows; brings back what was done with it before.
   * @param {string} id
   */
  open(id) {
    this.id = id;
    this.state = NOTHING;
    this.#astray = false;
    this.actions.changed();
    return this.reload();
  }

  close() {
    this.id = null;
    this.state = NOTHING;
    this.actions.changed();
  }

  /** The label map as the server has it, whatever the page shows. */
  reload() {
    return this.#change("Opening", async (id) => {
      const answer = await this.#fetch(id);
      if (this.id !== id) return answer;
      this.viewer.labels.empty();
      this.#astray = false;
      return answer;
    });
  }

  /** @param {import("../types.js").PromptRequest} body */
  async prompt(body) {
    const { box, foreground, background } = body;
    const shown = { box, foreground, background, lines: linesOf(body, this.viewer.meta) };
    this.pending.push(shown);
    this.actions.changed();
    await this.#watch("prompt", body);
    this.pending = this.pending.filter((one) => one !== shown);
    this.actions.changed();
  }

  /** @param {{model: string, overwrite: boolean, locked?: string[]}} body an automatic model */
  segment(body) {
    return this.#watch("segment", body);
  }

  /**
   * Fill the slices between those that show a label.
   * @param {{label: string, plane?: string, between: number[], overwrite: boolean, locked?: string[]}} body
   */
  interpolate(body) {
    return this.#ask("interpolate", "Interpolating", body);
  }

  /**
   * Stop what is being segmented; its answer tells what is left.
   * @param {boolean} keep what was found
   */
  async stop(keep) {
    if (!this.id) return;
    try {
      await post(imagePath(this.id, "/stop"), { client: this.actions.client(), keep });
    } catch (error) {
      this.actions.fail(error);
    }
  }

  /** @param {{label: string, action: string, to?: string, colour?: string, locked: string[]}} body a label as a whole; see the server */
  changeLabel(body) {
    return this.#ask("labels", "Changing the label", body);
  }

  /**
   * Add objects whose masks are known already.
   * @param {{objects: {label: string, changes: object[]}[], overwrite: boolean, locked: string[]}} body
   */
  addObjects(body) {
    return this.#ask("objects", "Adding", body);
  }

  accept() {
    return this.#ask("accept", "Accepting");
  }

  undo() {
    return this.#ask("undo", "Undoing");
  }

  redo() {
    return this.#ask("redo", "Redoing");
  }

  /** @param {string[]} locked labels, of which none may have voxels */
  clear(locked) {
    return this.#ask("clear", "Clearing", { locked });
  }

  /**
   * A stroke of brush or eraser. It is put on again before it is read, because an answer may have come in between.
   * @param {import("../types.js").Voxel[]} voxels
   * @param {string} label
   * @param {boolean} erased
   */
  async paint(voxels, label, erased) {
    const done = await this.#change("Painting", async (id) => {
      const { labels } = this.viewer;
      labels.paint(voxels, erased ? 0 : this.value(label));
      const changes = await Promise.all(rectangles(voxels).map(({ k, i, j }) => encode(labels.read(k, i, j))));
      return post(imagePath(id, "/paint"), { ...this.#belief, label, changes });
    });
    if (!done && this.id) await this.reload();
  }

  /**
   * The value of a label, also of one that is not used yet.
   * @param {string} label
   */
  value(label) {
    return valueOf(this.state.labels, label);
  }

  /**
   * The server writes the labels; the answer's note tells what came of it, `differs` what the page showed instead.
   * @returns {Promise<import("../types.js").Saved | undefined>} undefined if it failed
   */
  async save() {
    const saved = await this.#run("Saving", async (id) => {
      const shown = voxelsByName(this.state.labels, this.viewer.labels.counts());
      const answer = await post(imagePath(id, "/save"), { ...this.#belief, tag: "final" });
      if (this.id === id) this.state = { ...this.state, unsaved: false };
      return { ...answer, differs: difference(shown, answer.voxels) };
    });
    if (saved?.differs) await this.reload();
    return saved;
  }

  /** Whether another page or a restart of the server has changed the work meanwhile; it is shown again then. */
  async #look() {
    const { id, state } = this;
    if (!id || this.queue.waiting || (state.revision === undefined && !this.#astray)) return;
    try {
      const now = await get(imagePath(id, `/revision?client=${encodeURIComponent(this.actions.client())}`));
      if (this.id !== id || this.queue.waiting || this.state !== state) return;
      if (!this.#astray && now.revision === state.revision && now.boot === state.boot) return;
    } catch {
      return; // the next request tells
    }
    this.actions.warn(this.#astray ? BACK : ELSEWHERE);
    await this.reload();
  }

  /** @param {string} id */
  #fetch(id) {
    return get(imagePath(id, `/work?client=${encodeURIComponent(this.actions.client())}`));
  }

  /**
   * @param {string} what the last part of the address
   * @param {string} words
   * @param {object} body
   */
  #ask(what, words, body = {}) {
    return this.#change(words, (id) => post(imagePath(id, `/${what}`), { ...this.#belief, ...body }));
  }

  /**
   * Ask for something that may take long, and show what it finds meanwhile.
   * @param {string} what the last part of the address
   * @param {object} body
   */
  #watch(what, body) {
    return this.#change("Segmenting", async (id) => {
      try {
        return await postWatched(imagePath(id, `/${what}`), { ...this.#belief, ...body }, async (progress) => {
          if (this.id !== id) return;
          this.actions.progress(progress);
          const changes = await decodeAll(progress.changes);
          if (this.id === id && changes.length) this.viewer.labels.apply(changes);
        });
      } finally {
        this.actions.progress(null);
      }
    });
  }

  /**
   * Run a request whose answer changes the label map; whether it went well.
   * @param {string} words
   * @param {(id: string) => Promise<any>} request
   */
  async #change(words, request) {
    const began = performance.now();
    const done = await this.#run(words, async (id) => {
      const answer = await request(id);
      const changes = await decodeAll(answer.changes ?? []);
      if (this.id !== id) return false; // another image was opened in between
      this.#show(answer, changes);
      this.viewer.settle();
      this.seconds = (performance.now() - began) / 1000;
      return true;
    });
    this.actions.changed();
    return Boolean(done);
  }

  /**
   * @param {any} answer of the server
   * @param {import("../types.js").LabelRectangle[]} changes decoded
   */
  #show(answer, changes) {
    this.viewer.labels.apply(changes);
    this.state = { ...NOTHING, ...answer, prompt: answer.prompt ?? {} };
    for (const text of answer.warnings ?? []) this.actions.warn(text);
  }

  /**
   * Ask about the open image when all before is answered; undefined is returned after a failure.
   * @template T
   * @param {string} words
   * @param {(id: string) => Promise<T>} request
   * @returns {Promise<T | undefined>}
   */
  #run(words, request) {
    const id = this.id;
    if (!id) return Promise.resolve(undefined);
    return this.queue.add(
      words,
      () => request(id),
      async (error) => {
        this.#astray ||= error.status === 0;
        if (error.stale && this.id === id) await this.#renew(id);
      },
    );
  }

  /**
   * The whole state in place of one that the server does not know, before anything else is asked.
   * @param {string} id
   */
  #renew(id) {
    return this.queue.within("Opening", async () => {
      try {
        const answer = await this.#fetch(id);
        const changes = await decodeAll(answer.changes);
        if (this.id !== id) return;
        this.viewer.labels.empty();
        this.#show(answer, changes);
        this.#astray = false;
        this.actions.changed();
      } catch (error) {
        this.#astray = true;
        this.actions.fail(error);
      }
    });
  }
}
