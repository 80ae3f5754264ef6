// The work on the series that is shown: what the user does goes to the server, one thing after the other, and what the
// server answers goes into OHIF's label map.

import { GridMap } from './grid.js';
import * as labelmap from './labelmap.js';
import * as server from './server.js';
import { progressWords } from './stream.js';
import * as tools from './tools.js';
import { showRange } from './viewports.js';

const SETTLED_AFTER = 250; // ms without further strokes
const LONG = ['prompt', 'segment']; // requests that may take long
const LISTED = 8; // labels after saving, at most
const FAILED = ['CORNERSTONE_IMAGE_LOAD_ERROR', 'CORNERSTONE_IMAGE_LOAD_FAILED'];
const MISSING = 'Slices that the PACS did not send are black. Reload the page when it answers; your work is kept.';
const CONFLICT = 409; // the server's state is not the one that the request was meant for

export class Session {
  /** The case: series, map, planes (axis across each), known, prompt, canUndo, canRedo, revision, boot. */
  current = null;
  /** Requests that have not been answered. */
  pending = 0;
  /** What the tool bar says. */
  message = '';
  /** Whether slices of what is shown did not come. */
  missing = false;
  /** How far a long request is; '' if there is none. */
  progress = '';
  #dirty = false; // whether anybody else has changed voxels
  #settling = 0; // timer after such a change
  #pressed = false; // the mouse
  #queue = Promise.resolve();
  #registered = false;
  #seen = new Set(); // series whose window is set, or changed by the user

  /** @param {() => void} changed called when a request begins and when it ends */
  constructor(changed) {
    this.changed = changed;
  }

  /** What the tool bar shows at rest. */
  get sentence() {
    return this.message || (this.missing ? MISSING : '');
  }

  /** Hear of slices that cannot be shown, from the first one on. */
  listen() {
    for (const name of FAILED) {
      window.cornerstone.eventTarget.addEventListener(name, () => {
        this.missing = true;
        this.changed();
      });
    }
  }

  /** Say something in the tool bar, and for a moment over the image. */
  tell(text, type = 'info') {
    this.message = text;
    window.services.uiNotificationService.show({ title: 'SegMed', message: text, type, duration: 6000 });
  }

  /** One thing after the other; errors are told. */
  run(work) {
    this.pending += 1;
    this.changed();
    this.#queue = this.#queue
      .then(work)
      .catch(async error => {
        tools.keepOnly(this.current?.prompt);
        if ((error.status === CONFLICT || error.stale) && this.current) {
          await this.#renew(this.current).catch(failure => this.tell(failure.message, 'error'));
        }
        this.tell(error.message, 'error');
      })
      .finally(() => {
        this.pending -= 1;
        this.changed();
      });
    return this.#queue;
  }

  /**
   * Ask the server for something that changes the label map, and draw it.
   * @param {string} what
   * @param {object} body
   * @param {object} [mark] of the prompt, which stays until the answer says what belongs to the object
   */
  act(what, body = {}, mark = undefined) {
    return this.run(async () => {
      try {
        await this.push();
        const here = this.current;
        const asked = { ...belief(here), ...body };
        const answer = LONG.includes(what)
          ? await this.#watched(here, what, asked)
          : await server.post(here.series, what, asked);
        tools.answered(mark);
        await this.#draw(here, answer);
      } finally {
        tools.answered(mark);
      }
    });
  }

  /** Stop what is being segmented, and keep what was found or drop it. */
  async stop(keep) {
    try {
      await server.post(this.current.series, 'stop', { keep });
    } catch (error) {
      this.tell(error.message, 'error');
    }
  }

  /** The answer to a long request, whose partial masks are shown meanwhile. */
  async #watched(here, what, body) {
    try {
      return await server.postWatched(here.series, what, body, async progress => {
        this.progress = progressWords(progress);
        this.changed();
        if (here === this.current) {
          await labelmap.write(progress.changes, progress.labels, here.map, here.known);
        }
      });
    } finally {
      this.progress = '';
    }
  }

  /**
   * Make a label map for the series that is shown.
   * @param {boolean} anew whether one has been begun and not become usable
   */
  async prepare(anew) {
    const { labels, models } = await server.state();
    if (anew) {
      labelmap.discard();
    }
    await labelmap.make([...new Set([...labels, ...models.flatMap(model => model.labels)])].slice(0, 255));
  }

  /**
   * Begin with a series that has a label map.
   * @param {string} series UID
   * @param {import('./tools.js').Drawn} on
   * @param {(state: object) => void} offer is given the server's state
   */
  async open(series, on, offer) {
    this.#register(on);
    const [state, image] = await Promise.all([server.state(), server.describe(series)]);
    const map = new GridMap(image, labelmap.volume());
    offer(state);
    this.current = { series, map, planes: image.planes, known: labelmap.read() };
    this.#dirty = this.current.known.some(Boolean); // drawn by the panel before the server could be asked
    await labelmap.show(map);
    if (!this.#seen.has(series)) {
      this.#seen.add(series);
      showRange(image.window);
    }
    await this.#draw(this.current, await server.work(series));
    await this.push();
    this.message ||= state.warning;
  }

  /** Another series is shown, which gets a label map of its own: the server keeps the work on this one. */
  async leave() {
    await (this.current && this.push());
    this.current = null;
    this.missing = false;
    labelmap.discard();
  }

  /** Send what the user painted, or what MONAI Label's panel drew, as one step that can be undone. */
  async push(always = false) {
    if (!this.#dirty && !always) {
      return;
    }
    const here = this.current;
    const voxels = labelmap.read();
    this.#dirty = false;
    if (!always && same(voxels, here.known)) {
      return;
    }
    const present = new Set(voxels);
    const names = Object.entries(labelmap.names()).filter(([index]) => present.has(Number(index)));
    const params = { ...here.map.place(), names: Object.fromEntries(names), ...belief(here) };
    const packed = await labelmap.deflate(here.map.inServerOrder(voxels));
    const answer = await server.sendLabelmap(here.series, params, packed).catch(error => {
      this.#dirty = error.status !== CONFLICT;
      throw error;
    });
    here.known = voxels;
    this.#note(here, answer);
  }

  /** Write the result to the PACS. */
  async save() {
    await this.push(true);
    const here = this.current;
    const saved = await server.post(here.series, 'save', { tag: 'final', ...belief(here) });
    const edition = saved.edition ? `, version ${saved.edition}` : '';
    const where = saved.seg
      ? `The result is in the PACS as DICOM SEG${edition}.`
      : 'The result is saved on the server.';
    const counts = Object.entries(saved.voxels)
      .map(([name, count]) => `${name} ${count}`)
      .join(', ');
    const number = Object.keys(saved.voxels).length;
    const what = number > LISTED ? `${number} labels.` : counts && `Voxels: ${counts}.`;
    this.tell([where, saved.note, what].filter(Boolean).join(' '), 'success');
  }

  /** Show the state of the server in place of what is shown. */
  async #renew(here) {
    const answer = await server.work(here.series);
    this.#dirty = false;
    labelmap.empty(here.known);
    await this.#draw(here, answer);
  }

  async #draw(here, answer) {
    if (here === this.current) {
      await labelmap.write(answer.changes, answer.labels, here.map, here.known);
    }
    this.#note(here, answer);
  }

  #note(here, answer) {
    here.prompt = answer.prompt;
    here.canUndo = answer.can_undo;
    here.canRedo = answer.can_redo;
    here.revision = answer.revision;
    here.boot = answer.boot;
    tools.keepOnly(answer.prompt);
    tools.drawMissing(answer.prompt, here.map);
    this.message = answer.warnings.join(' ');
  }

  /** Hear the mouse and whoever changes the label map, once per page. */
  #register(on) {
    if (this.#registered) {
      return;
    }
    this.#registered = true;
    tools.register(on);
    labelmap.onForeignChange(() => this.#settle());
    addEventListener('pointerdown', () => (this.#pressed = true), true);
    addEventListener('pointerup', () => (this.#pressed = false), true);
  }

  /** Somebody else has changed voxels: send them when the stroke is over. */
  #settle() {
    this.#dirty = true;
    clearTimeout(this.#settling);
    this.#settling = setTimeout(() => {
      if (this.#pressed) {
        this.#settle();
      } else if (this.current) {
        this.run(() => this.push());
      }
    }, SETTLED_AFTER);
  }
}

/** The state that a request is meant for; the server refuses it with 409 if it is in another one. */
const belief = ({ revision, boot }) => ({ revision, boot });

function same(a, b) {
  let n = 0;
  while (n < a.length && a[n] === b[n]) {
    n += 1;
  }
  return n === a.length;
}
