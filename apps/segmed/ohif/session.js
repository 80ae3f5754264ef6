// The work on the series that is shown: what the user does goes to the server, one thing after the other, and what the
// server answers goes into OHIF's label map.

import { GridMap } from './grid.js';
import * as labelmap from './labelmap.js';
import * as server from './server.js';
import { progressWords } from './stream.js';
import * as tools from './tools.js';

const SETTLED_AFTER = 250; // ms without further strokes
const LONG = ['prompt', 'segment']; // requests that may take long
const CONFLICT = 409; // the server's state is not the one that the request was meant for

export class Session {
  /** The case: series, map, known, prompt, canUndo, canRedo, revision, boot. */
  current = null;
  /** Requests that have not been answered. */
  pending = 0;
  /** What the tool bar says. */
  message = '';
  /** How far a long request is; '' if there is none. */
  progress = '';
  #dirty = false; // whether anybody else has changed voxels
  #settling = 0; // timer after such a change
  #pressed = false; // the mouse
  #queue = Promise.resolve();
  #registered = false;

  /** @param {() => void} changed called when a request begins and when it ends */
  constructor(changed) {
    this.changed = changed;
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

  /** Ask the server for something that changes the label map, and draw it. */
  act(what, body = {}) {
    return this.run(async () => {
      await this.push();
      const here = this.current;
      const asked = { ...belief(here), ...body };
      const answer = LONG.includes(what)
        ? await this.#watched(here, what, asked)
        : await server.post(here.series, what, asked);
      await this.#draw(here, answer);
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
   * Begin with a series, whose label map the panel has made.
   * @param {string} series UID
   * @param {{box: (corners: number[][]) => void, point: (kind: string, place: number[], mark: object) => void}} on mm
   * @param {(state: object) => void} offer is given the server's state
   */
  async open(series, on, offer) {
    this.#register(on);
    const [state, image] = await Promise.all([server.state(), server.describe(series)]);
    const map = new GridMap(image, labelmap.volume());
    offer(state);
    this.current = { series, map, known: labelmap.read() };
    this.#dirty = this.current.known.some(Boolean); // drawn by the panel before the server could be asked
    await labelmap.show(map);
    await this.#draw(this.current, await server.work(series));
    await this.push();
    this.message ||= state.warning;
  }

  /** Another series is shown: the server keeps the work on this one, and the panel makes a label map for that one. */
  async leave() {
    await (this.current && this.push());
    this.current = null;
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
    const where = saved.seg ? 'The result is in the PACS as DICOM SEG.' : 'The result is saved on the server.';
    const counts = Object.entries(saved.voxels)
      .map(([name, count]) => `${name} ${count}`)
      .join(', ');
    this.tell([where, saved.note, counts && `Voxels: ${counts}.`].filter(Boolean).join(' '), 'success');
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
    this.message = answer.warnings.join(' ');
  }

  /** Hear the mouse and whoever changes the label map, once per page. */
  #register({ box, point }) {
    if (this.#registered) {
      return;
    }
    this.#registered = true;
    tools.register(box, point);
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
