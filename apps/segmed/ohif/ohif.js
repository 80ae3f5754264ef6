// SegMed in OHIF: connects MONAI Label's panel, and adds a tool bar with box, clicks, brush, undo, next case and save.

import { Bar } from './bar.js';
import { GridMap } from './grid.js';
import * as labelmap from './labelmap.js';
import * as server from './server.js';
import * as tools from './tools.js';

const LOOK_EVERY = 400; // ms
const SETTLED_AFTER = 250; // ms without further strokes
const AGAIN_AFTER = 5000; // ms

let now = null; // the case: series, map, known, canUndo, canRedo, prompt
let pending = 0;
let message = '';
let lookedAt = 0; // time of the last attempt to open a series
let lookedFor = ''; // that series
let dirty = false; // whether anybody else has changed voxels
let settling = null; // timer after such a change
let pressed = false; // of the mouse
let queue = Promise.resolve();
let registered = false;
let greeted = false;
const connected = new WeakMap(); // times by panel

const bar = new Bar({
  box: () => tools.use(tools.BOX),
  foreground: () => tools.use(tools.POINT, 'foreground'),
  background: () => tools.use(tools.POINT, 'background'),
  brush: () => paint(tools.BRUSH),
  eraser: () => paint(tools.ERASER),
  size: value => tools.setBrushSize(Number(value)),
  label: () => act('accept').then(() => labelmap.activate(label())),
  fresh: () => act('accept'),
  undo: () => act('undo'),
  redo: () => act('redo'),
  auto: () => automatic(),
  next: () => run(openNext),
  save: () => run(save),
  leave: () => run(async () => {
    await (now && push());
    await server.logOut();
  }),
});

const label = () => bar.label.value.normalize('NFC').trim() || 'object';

function tell(text, type = 'info') {
  message = text;
  window.services.uiNotificationService.show({ title: 'SegMed', message: text, type, duration: 6000 });
}

/** One thing after the other; errors are told. */
function run(work) {
  pending += 1;
  refresh();
  queue = queue.then(work).catch(async error => {
    tools.keepOnly(now?.prompt);
    if (error.status === 409 && now) {
      await renew(now).catch(failure => tell(failure.message, 'error'));
    }
    tell(error.message, 'error');
  }).finally(() => {
    pending -= 1;
    refresh();
  });
  return queue;
}

/** The state that a request is meant for; the server refuses it with 409 if it is in another one. */
const belief = here => ({ revision: here.revision, boot: here.boot });

/** Show the state of the server in place of what is shown. */
async function renew(here) {
  const answer = await server.work(here.series);
  dirty = false;
  labelmap.empty(here.known);
  await draw(here, answer);
}

/** Ask the server for something that changes the label map, and draw it. */
const act = (what, body) => run(async () => {
  await push();
  const here = now;
  await draw(here, await server.post(here.series, what, { ...belief(here), ...body }));
});

const prompt = (model, body) => act('prompt', { model, label: label(), overwrite: bar.overwrite.checked, ...body });

async function draw(here, answer) {
  if (here === now) {
    await labelmap.write(answer.changes, answer.labels, here.map, here.known);
  }
  note(here, answer);
}

function note(here, answer) {
  here.prompt = answer.prompt;
  here.canUndo = answer.can_undo;
  here.canRedo = answer.can_redo;
  here.revision = answer.revision;
  here.boot = answer.boot;
  tools.keepOnly(answer.prompt);
  message = answer.warnings.join(' ');
}

/** Send what the user painted, or what MONAI Label's panel drew, as one step that can be undone. */
async function push(always = false) {
  if (!dirty && !always) {
    return;
  }
  const here = now;
  const voxels = labelmap.read();
  dirty = false;
  if (!always && same(voxels, here.known)) {
    return;
  }
  const present = new Set(voxels);
  const names = Object.fromEntries(Object.entries(labelmap.names()).filter(([index]) => present.has(Number(index))));
  const packed = await labelmap.deflate(here.map.inServerOrder(voxels));
  const answer = await server.sendLabelmap(here.series, { ...here.map.place(), names, ...belief(here) }, packed).catch(error => {
    dirty = error.status !== 409;
    throw error;
  });
  here.known = voxels;
  note(here, answer);
}

function same(a, b) {
  let n = 0;
  while (n < a.length && a[n] === b[n]) {
    n += 1;
  }
  return n === a.length;
}

function paint(tool) {
  labelmap.activate(label());
  tools.use(tool);
  tools.setBrushSize(Number(bar.size.value));
}

function automatic() {
  const model = bar.automatic.value;
  return bar.isAutomatic.has(model) ? act('segment', { model, overwrite: bar.overwrite.checked }) : prompt(model);
}

async function save() {
  await push(true);
  const saved = await server.post(now.series, 'save', { tag: 'final', ...belief(now) });
  const where = saved.seg ? 'The result is in the PACS as DICOM SEG.' : 'The result is saved on the server.';
  const counts = Object.entries(saved.voxels).map(([name, count]) => `${name} ${count}`).join(', ');
  tell([where, saved.note, counts && `Voxels: ${counts}.`].filter(Boolean).join(' '), 'success');
}

async function openNext() {
  const next = await server.nextCase();
  if (!next.StudyInstanceUID) {
    tell('There is no further case.');
    return;
  }
  const query = new URLSearchParams({ StudyInstanceUIDs: next.StudyInstanceUID, initialseriesinstanceuid: next.id });
  location.assign(new URL(`ohif/monai-label?${query}`, server.root));
}

function onBox(corners) {
  try {
    prompt(bar.model.value, { box: now.map.region(corners) });
  } catch (error) {
    tell(error.message, 'warning');
  }
}

function onPoint(kind, world, mark) {
  const voxel = now.map.voxel(world).map(Math.round);
  tools.keep(mark, kind, voxel);
  prompt(bar.model.value, { [kind]: [voxel] });
}

function onForeignChange() {
  dirty = true;
  clearTimeout(settling);
  settling = setTimeout(() => (pressed ? onForeignChange() : now && run(() => push())), SETTLED_AFTER);
}

/** The series of the view that was used last; nothing before it is drawn, or if it is no volume. */
function seriesShown() {
  const { cornerstoneViewportService, viewportGridService, displaySetService } = window.services;
  try {
    const { viewports, activeViewportId } = viewportGridService.getState();
    const drawn = cornerstoneViewportService.getCornerstoneViewport(activeViewportId)?.getImageData();
    const [shown] = viewports.get(activeViewportId).displaySetInstanceUIDs;
    const displaySet = drawn && displaySetService.getDisplaySetByUID(shown);
    return displaySet?.isReconstructable ? displaySet.SeriesInstanceUID : undefined;
  } catch {
    return undefined; // OHIF is still making its views
  }
}

/** Another series is shown: the server keeps the work on this one, and the panel makes a label map for that one. */
async function leave() {
  if (labelmap.volume() && labelmap.series() !== seriesShown()) {
    await (now && push());
    now = null;
    labelmap.discard();
  }
}

async function open(series) {
  if (!registered) {
    registered = true;
    tools.register(onBox, onPoint);
    labelmap.onForeignChange(onForeignChange);
    addEventListener('pointerdown', () => (pressed = true), true);
    addEventListener('pointerup', () => (pressed = false), true);
  }
  const [state, image] = await Promise.all([server.state(), server.describe(series)]);
  const map = new GridMap(image, labelmap.volume());
  bar.offer(state);
  now = { series, map, known: labelmap.read() };
  dirty = now.known.some(Boolean); // drawn by the panel before the server could be asked
  await labelmap.show(map);
  await draw(now, await server.work(series));
  await push();
  message ||= state.warning;
}

/** Press the button of MONAI Label's panel for the user; again if no label map has come of it. */
function connect() {
  const address = document.getElementById('monailabelServerURL');
  const waited = Date.now() - connected.get(address) > AGAIN_AFTER && !labelmap.volume();
  if (address && seriesShown() && (!connected.has(address) || waited)) {
    connected.set(address, Date.now());
    if (waited) {
      labelmap.discard();
    }
    address.value = server.root.href;
    address.closest('table').querySelector('button').click();
  }
}

/** Show who is there, as soon as the bar is. */
function greet() {
  if (!greeted) {
    greeted = true;
    server.state().then(state => bar.greet(state)).catch(() => (greeted = false));
  }
}

function refresh() {
  const [tool, kind] = window.services ? tools.used() : [];
  const names = { [tools.BOX]: 'box', [tools.POINT]: kind, [tools.BRUSH]: 'brush', [tools.ERASER]: 'eraser' };
  bar.update({ ready: Boolean(now), ...now, tool: names[tool], busy: pending > 0, message });
}

function look() {
  const here = /\/monai-label$/.test(location.pathname) && window.services?.viewportGridService;
  document.body.classList.toggle('segmed', Boolean(here));
  bar.element.hidden = !here;
  if (!here) {
    now = null;
    return;
  }
  greet();
  connect();
  const volume = labelmap.volume();
  const series = volume && labelmap.series();
  const shown = seriesShown();
  if (!series) {
    now = null;
  } else if (shown && !pending && shown !== series) {
    run(leave);
  } else if (shown && !pending && now?.series !== series) {
    const tried = lookedFor === series && Date.now() - lookedAt < AGAIN_AFTER;
    now = null;
    if (!tried) {
      [lookedAt, lookedFor] = [Date.now(), series];
      run(() => open(series));
    }
  }
  refresh();
}

document.body.append(bar.element);
bar.element.hidden = true;
setInterval(look, LOOK_EVERY);
