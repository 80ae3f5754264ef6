/**
 * What the user does with the open image, as the server keeps it: one request after the other, so that each sees what
 * the one before has done.
 */
import { imagePath, post, get } from "./api.js";
import { decodeAll, encode } from "./changes.js";

const NOTHING = { labels: {}, can_undo: false, can_redo: false, prompt: {}, unsaved: false };
const LOOK_EVERY = 4000; // ms between two looks at what other pages do

export class Work {
  /**
   * @param {Viewer} viewer
   * @param {object} does client(), changed(), busy(what or ""), warn(text), fail(error)
   */
  constructor(viewer, does) {
    this.viewer = viewer;
    this.does = does;
    this.id = null;
    this.state = NOTHING;
    this.pending = []; // prompts on their way
    this.seconds = {}; // of the last request: the server's, until `answered`, until `drawn`
    this.last = Promise.resolve();
    this.waiting = 0;
    setInterval(() => document.hidden || this.look(), LOOK_EVERY);
    document.addEventListener("visibilitychange", () => document.hidden || this.look());
  }

  /** The state that requests are meant for; the server refuses them if it is in another one. */
  get #belief() {
    const { revision, boot } = this.state;
    return { client: this.does.client(), revision, boot };
  }

  /** Whether another page or a restart of the server has changed the work meanwhile; it is shown anew then. */
  async look() {
    const { id, state } = this;
    if (!id || this.waiting || state.revision === undefined) return;
    try {
      const now = await get(imagePath(id, `/revision?client=${encodeURIComponent(this.does.client())}`));
      if (this.id !== id || this.waiting || this.state !== state) return;
      if (now.revision === state.revision && now.boot === state.boot) return;
    } catch {
      return; // the next request tells
    }
    this.does.warn("Your work on this image was changed elsewhere, or the server was restarted. It is shown anew.");
    await this.reload();
  }

  /** Begin with an image that the viewer shows; brings back what was done with it before. */
  open(id) {
    this.id = id;
    this.state = NOTHING;
    this.does.changed();
    return this.reload();
  }

  close() {
    this.id = null;
    this.state = NOTHING;
    this.does.changed();
  }

  /** The label map as the server has it, whatever the page shows. */
  reload() {
    return this.#queue("Opening", async (id) => {
      const answer = await get(imagePath(id, `/work?client=${encodeURIComponent(this.does.client())}`));
      if (this.id === id) this.viewer.empty();
      return answer;
    });
  }

  async prompt(body) {
    const shown = { box: body.box, foreground: body.foreground, background: body.background };
    this.pending.push(shown);
    this.does.changed();
    await this.#post("prompt", "Segmenting", body);
    this.pending = this.pending.filter((one) => one !== shown);
    this.does.changed();
  }

  segment(body) {
    return this.#post("segment", "Segmenting", body);
  }

  accept() {
    return this.#post("accept", "Accepting", {});
  }

  undo() {
    return this.#post("undo", "Undoing", {});
  }

  redo() {
    return this.#post("redo", "Redoing", {});
  }

  clear() {
    return this.#post("clear", "Clearing", {});
  }

  /** A stroke of brush or eraser. It is put on again before it is read, because an answer may have come in between. */
  async paint(voxels, label, erase) {
    const done = await this.#queue("Painting", async (id) => {
      this.viewer.paint(voxels, erase ? 0 : this.value(label));
      const changes = await Promise.all(rectangles(voxels).map(({ k, i, j }) => encode(this.viewer.read(k, i, j))));
      return post(imagePath(id, "/paint"), { ...this.#belief, label, changes });
    });
    if (!done && this.id) await this.reload();
  }

  /** The value of a label; a new one gets the next free value. */
  value(label) {
    const taken = new Set(Object.values(this.state.labels));
    let free = 1;
    while (taken.has(free)) free++;
    return this.state.labels[label] ?? free;
  }

  /** The server writes the labels; the answer's note tells what came of it, `differs` what the page shows instead. */
  async save() {
    const saved = await this.#run("Saving", async (id) => {
      const shown = this.voxels();
      const answer = await post(imagePath(id, "/save"), { ...this.#belief, tag: "final" });
      if (this.id === id) this.state = { ...this.state, unsaved: false };
      return { ...answer, differs: difference(shown, answer.voxels) };
    });
    if (saved?.differs) await this.reload();
    return saved;
  }

  /** Voxels that the page shows, by the name of the label. */
  voxels() {
    const counts = this.viewer.counts();
    const named = Object.entries(this.state.labels).map(([name, value]) => [name, counts[value]]);
    return Object.fromEntries(named.filter(([, count]) => count));
  }

  #post(what, words, body) {
    return this.#queue(words, (id) => post(imagePath(id, `/${what}`), { ...this.#belief, ...body }));
  }

  /** Run a request whose answer changes the label map; whether it went well. */
  async #queue(words, request) {
    const began = performance.now();
    const done = await this.#run(words, async (id) => {
      const answer = await request(id);
      const answered = performance.now();
      const changes = await decodeAll(answer.changes ?? []);
      if (this.id !== id) return false; // another image was opened in between
      this.viewer.apply(changes);
      this.state = { ...NOTHING, ...answer, prompt: answer.prompt ?? {} };
      this.viewer.settle();
      const drawn = performance.now();
      this.seconds = { ...answer.seconds, answered: (answered - began) / 1000, drawn: (drawn - began) / 1000 };
      for (const text of answer.warnings ?? []) this.does.warn(text);
      return true;
    });
    this.does.changed();
    return Boolean(done);
  }

  /** Wait for what was asked before, then run; failures are shown, and undefined is returned. */
  #run(words, request) {
    const id = this.id;
    if (!id) return Promise.resolve();
    this.waiting++;
    let stale = false;
    const turn = this.last.then(async () => {
      this.does.busy(words);
      try {
        return await request(id);
      } catch (error) {
        this.does.fail(error);
        stale = error.status === 409;
      } finally {
        if (!--this.waiting) this.does.busy("");
      }
    });
    this.last = turn.then(() => stale && this.id === id && this.#anew(id));
    return turn;
  }

  /** The whole state in place of one that the server does not know, before anything else is asked. */
  async #anew(id) {
    this.waiting++;
    try {
      const answer = await get(imagePath(id, `/work?client=${encodeURIComponent(this.does.client())}`));
      const changes = await decodeAll(answer.changes);
      if (this.id !== id) return;
      this.viewer.empty();
      this.viewer.apply(changes);
      this.state = { ...NOTHING, ...answer, prompt: answer.prompt ?? {} };
      for (const text of answer.warnings ?? []) this.does.warn(text);
      this.does.changed();
    } catch (error) {
      this.does.fail(error);
    } finally {
      if (!--this.waiting) this.does.busy("");
    }
  }
}

/** A sentence on labels that were saved with other numbers of voxels than the page shows; "" if there are none. */
function difference(shown, saved) {
  const names = [...new Set([...Object.keys(shown), ...Object.keys(saved)])];
  const parts = names
    .filter((name) => (shown[name] ?? 0) !== (saved[name] ?? 0))
    .map((name) => `${name}: ${saved[name] ?? 0} voxels saved, ${shown[name] ?? 0} shown`);
  return parts.length ? `What was saved differs from what was shown (${parts.join("; ")}). It is shown anew.` : "";
}

/** The smallest rectangle around the voxels of each slice, half-open. */
function rectangles(voxels) {
  const slices = new Map();
  for (const [i, j, k] of voxels) {
    const one = slices.get(k) ?? { k, i: [i, i + 1], j: [j, j + 1] };
    one.i = [Math.min(one.i[0], i), Math.max(one.i[1], i + 1)];
    one.j = [Math.min(one.j[0], j), Math.max(one.j[1], j + 1)];
    slices.set(k, one);
  }
  return [...slices.values()];
}
