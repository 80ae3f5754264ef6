// SegMed in OHIF: makes the label map, and adds a tool bar with prompts, brush, undo, next case and save.

import { Bar } from './bar.js';
import * as labelmap from './labelmap.js';
import { PanelConnection } from './panel.js';
import * as server from './server.js';
import { Session } from './session.js';
import * as tools from './tools.js';
import { seriesShown, showsSingleImages } from './viewports.js';
import { Watch } from './watch.js';

const RETRY_AFTER = 5000; // ms
const SCRIBBLE_WIDTH = 3; // px

class SegMed {
  #attempt = { what: '', at: 0 }; // the last one to open or to leave a series
  #retry = 0; // timer
  #panel = new PanelConnection();
  #watch = new Watch(
    () => this.look(),
    () => this.session.listen(),
  );
  #greeted = false;

  constructor() {
    this.session = new Session(() => this.onRequest());
    const { session } = this;
    this.bar = new Bar({
      box: () => tools.use(tools.BOX),
      foreground: () => tools.use(tools.POINT, 'foreground'),
      background: () => tools.use(tools.POINT, 'background'),
      lasso: () => tools.use(tools.LASSO),
      into: () => tools.use(tools.SCRIBBLE, 'foreground'),
      beside: () => tools.use(tools.SCRIBBLE, 'background'),
      brush: () => this.paint(tools.BRUSH),
      eraser: () => this.paint(tools.ERASER),
      size: value => tools.setBrushSize(Number(value)),
      label: () => session.act('accept').then(() => labelmap.activate(this.label)),
      fresh: () => session.act('accept'),
      undo: () => session.act('undo'),
      redo: () => session.act('redo'),
      keep: () => session.stop(true),
      drop: () => session.stop(false),
      auto: () => this.segmentAutomatically(),
      next: () => session.run(() => this.openNext()),
      save: () => session.run(() => session.save()),
      leave: () => session.run(() => this.logOut()),
    });
  }

  start() {
    document.body.append(this.bar.element);
    this.bar.element.hidden = true;
    this.#watch.start();
  }

  get label() {
    return this.bar.label.value.normalize('NFC').trim() || 'object';
  }

  prompt(model, body = {}, mark = undefined) {
    const asked = { model, label: this.label, overwrite: this.bar.overwrite.checked, ...body };
    return this.session.act('prompt', asked, mark);
  }

  segmentAutomatically() {
    const { automatic, isAutomatic, overwrite } = this.bar;
    const model = automatic.value;
    return isAutomatic.has(model)
      ? this.session.act('segment', { model, overwrite: overwrite.checked })
      : this.prompt(model);
  }

  paint(tool) {
    labelmap.activate(this.label);
    tools.use(tool);
    tools.setBrushSize(Number(this.bar.size.value));
  }

  async openNext() {
    const next = await server.nextCase(seriesShown());
    if (!next.StudyInstanceUID) {
      this.session.tell('There is no further case.');
      return;
    }
    const query = new URLSearchParams({ StudyInstanceUIDs: next.StudyInstanceUID, initialseriesinstanceuid: next.id });
    location.assign(new URL(`ohif/monai-label?${query}`, server.root));
  }

  /** Show who has logged in, as soon as the bar is there, and what is wrong with the PACS. */
  #greet() {
    if (!this.#greeted) {
      this.#greeted = true;
      server
        .state()
        .then(state => {
          this.bar.greet(state);
          if (state.studies.state !== 'ok') {
            this.session.tell(state.studies.message, 'error');
            this.refresh();
          }
        })
        .catch(() => (this.#greeted = false));
    }
  }

  async logOut() {
    if (this.session.current) {
      await this.session.push();
    }
    await server.logOut();
  }

  onBox(corners) {
    try {
      this.prompt(this.bar.model.value, { box: this.session.current.map.region(corners) });
    } catch (error) {
      this.session.tell(error.message, 'warning');
    }
  }

  onPoint(kind, world, mark) {
    const voxel = this.session.current.map.voxel(world).map(Math.round);
    tools.keep(mark, kind, voxel.join());
    this.prompt(this.bar.model.value, { [kind]: [voxel] }, mark);
  }

  /** A lasso, or a scribble of a kind. */
  onLine(tool, kind, places, normal, mark) {
    const { map, planes, prompt } = this.session.current;
    const { across, k, points } = map.line(places, normal);
    const plane = across === 2 ? undefined : Object.keys(planes).find(name => planes[name] === across);
    const isLasso = tool === tools.LASSO;
    tools.keep(mark, isLasso ? 'lasso' : 'stroke', isLasso ? '' : tools.nextStroke(prompt));
    const drawn = isLasso
      ? { lasso: { k, points } }
      : { scribbles: [{ k, foreground: kind === 'foreground', points, width: SCRIBBLE_WIDTH }] };
    this.prompt(this.bar.model.value, { plane, ...drawn }, mark);
  }

  /** Something may have changed in OHIF: open the series that is shown, or leave the one that is not shown any more. */
  look() {
    const { session } = this;
    const isHere = Boolean(/\/monai-label$/.test(location.pathname) && window.services?.viewportGridService);
    document.body.classList.toggle('segmed', isHere);
    this.bar.element.hidden = !isHere;
    if (!isHere) {
      session.current = null;
      session.missing = false;
      return;
    }
    this.#greet();
    this.#panel.connect();
    this.bar.elsewhere.hidden = !showsSingleImages();
    const series = labelmap.volume() && labelmap.series();
    const shown = seriesShown();
    if (!series) {
      session.current = null;
      this.#prepare(shown);
    } else if (shown && !session.pending && shown !== series) {
      this.#leave(series);
    } else if (shown && !session.pending && session.current?.series !== series) {
      this.#open(series);
    }
    if (!shown || session.current?.series !== shown) {
      this.#tryAgain();
    }
    this.refresh();
  }

  /** Whether something is to be tried now: not again at once where it has just failed. */
  #isDue(what) {
    if (this.#attempt.what === what && performance.now() - this.#attempt.at < RETRY_AFTER) {
      return false;
    }
    this.#attempt = { what, at: performance.now() };
    return true;
  }

  #prepare(shown) {
    const again = this.#attempt.what === `prepare ${shown}`;
    if (shown && !this.session.pending && this.#isDue(`prepare ${shown}`)) {
      this.session.run(() => this.session.prepare(again));
    }
  }

  #leave(series) {
    if (this.#isDue(`leave ${series}`)) {
      this.session.run(async () => {
        if (labelmap.volume() && labelmap.series() !== seriesShown()) {
          await this.session.leave();
        }
      });
    }
  }

  #open(series) {
    const { session } = this;
    session.current = null;
    if (this.#isDue(`open ${series}`)) {
      const on = {
        box: corners => this.onBox(corners),
        point: (...given) => this.onPoint(...given),
        line: (...given) => this.onLine(...given),
      };
      session.run(async () => {
        await session.open(series, on, state => this.bar.offer(state));
        this.bar.label.value = session.current?.prompt?.label || this.bar.label.value; // of the object that is open
      });
    }
  }

  /** Nothing tells that the server has failed to answer: look again while something is due. */
  #tryAgain() {
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.look(), RETRY_AFTER + 100);
  }

  /** A request has begun or ended. */
  onRequest() {
    this.refresh();
    if (!this.session.pending) {
      this.#watch.soon(); // what OHIF has shown in the meantime
    }
  }

  /** Show what can be pressed now. */
  refresh() {
    const { current, pending, sentence, progress } = this.session;
    const [tool, kind] = window.services ? tools.used() : [];
    const names = {
      [tools.BOX]: 'box',
      [tools.POINT]: kind,
      [tools.LASSO]: 'lasso',
      [tools.SCRIBBLE]: kind === 'foreground' ? 'into' : 'beside',
      [tools.BRUSH]: 'brush',
      [tools.ERASER]: 'eraser',
    };
    this.bar.update({
      ready: Boolean(current),
      ...current,
      tool: names[tool],
      busy: pending > 0,
      message: sentence,
      progress,
    });
  }
}

new SegMed().start();
