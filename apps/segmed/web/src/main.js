/** The page: makes its parts and has them tell each other what happens. */
import { listen } from "./keyboard.js";
import { SLICES } from "./image/planes.js";
import { Viewer } from "./image/viewer.js";
import { Opening } from "./opening.js";
import { Overlay } from "./overlay/overlay.js";
import { showBusy } from "./panels/busy.js";
import { Comparison } from "./panels/comparison.js";
import { describe } from "./panels/description.js";
import { DisplayPanel } from "./panels/display.js";
import { button, find, findAll, onClick, wireDialogs } from "./panels/dom.js";
import { LabelMenu } from "./panels/label-menu.js";
import { LabelPanel } from "./panels/labels.js";
import { say } from "./panels/messages.js";
import { ModelPanel } from "./panels/models.js";
import { ProgressPanel } from "./panels/progress.js";
import { Proposals } from "./panels/proposals.js";
import { ResultPanel } from "./panels/result.js";
import { SliceSlider } from "./panels/slice-slider.js";
import { SlicesPanel } from "./panels/slices.js";
import { showPlace, showSeconds } from "./panels/status.js";
import { Studies } from "./panels/studies.js";
import { SurfaceView } from "./panels/surface.js";
import { ToolBar, showHelp } from "./panels/toolbar.js";
import { UserPanel } from "./panels/user.js";
import { KeyboardCursor } from "./tools/keyboard-cursor.js";
import { Pointer } from "./tools/pointer.js";
import { TouchGestures } from "./tools/touch.js";
import { labelFacts, nextObject } from "./work/label-facts.js";
import { Work } from "./work/work.js";

const NEED_AN_IMAGE =
  "#accept, #clear, #compare, #save, #former, #nifti, #names-table, #nrrd, #segment, #propose, #reset, #invert, " +
  "#interpolate, #show-surface";
const STUDIES_GONE = [0, 424]; // statuses that tell that the server or the PACS is gone

const imageCanvas = find("#image", HTMLCanvasElement);
const overlayCanvas = find("#overlay", HTMLCanvasElement);

const user = new UserPanel({ changed: anotherUser, fail });
const models = new ModelPanel();
const viewer = new Viewer(imageCanvas);
const labels = new LabelPanel(viewer.style, {
  changed: showWork,
  restyled: () => {
    viewer.restyle();
    showWork();
  },
  menu: (facts) => labelMenu.open(facts),
});
const overlay = new Overlay(overlayCanvas, viewer);
const display = new DisplayPanel(viewer);
const client = () => user.name;
const work = new Work(viewer, {
  client,
  changed: showWork,
  busy: (words) => showBusy("work", words),
  progress: (one) => progress.show(one),
  warn: (text) => say(text, "warning"),
  fail,
});
const progress = new ProgressPanel((keep) => work.stop(keep));
const slices = new SlicesPanel(viewer, {
  prompt: () => work.state.prompt,
  ask: askModel,
  interpolate: (request) =>
    work.interpolate({
      ...request,
      label: labels.name,
      overwrite: models.overwrite,
      locked: labels.lockedNames(work.state.labels),
    }),
});
new SurfaceView({ shown: labelsWithVoxels, fail });
const pointer = new Pointer(overlayCanvas, viewer, overlay, {
  done: useGesture,
  labelValue: () => work.value(labels.name),
  open: () => work.state.prompt,
  hover: showVoxel,
});
const toolbar = new ToolBar(pointer);
const studies = new Studies({ open: (image) => opening.open(image), state: showState, client });
const opening = new Opening(
  { studies, viewer, work },
  {
    client,
    opened: showImage,
    goOn: (label) => (labels.name = label),
    fail,
  },
);
const comparison = new Comparison({ work, overlay, viewer, models, labels, user });
const labelMenu = new LabelMenu({ work, labels, style: viewer.style });
const proposals = new Proposals({ work, overlay, viewer, models, labels, client });
const slider = new SliceSlider(viewer);
const cursor = new KeyboardCursor(overlayCanvas, viewer, pointer);
const result = new ResultPanel(work, { client, saved: () => studies.refresh(), fail });

/** @param {Error & {status?: number}} error */
function fail(error) {
  say(error.message, "error");
  if (STUDIES_GONE.includes(error.status)) studies.watch();
}

function anotherUser() {
  studies.refresh();
  if (work.id) work.reload();
}

/** @param {import("./types.js").ServerState} state */
function showState(state) {
  find("#version").textContent = state.version;
  if (state.user && user.logIn(state.user) && work.id) work.reload();
  if (state.warning) say(state.warning, "warning");
  models.offer(state.models, viewer.isFlat);
  labels.offer(state.labels);
}

/** Another image is open. */
function showImage() {
  models.show(viewer.isFlat);
  display.show();
  comparison.close();
  proposals.close();
  pointer.measuring.measures.length = 0;
}

/** The work on the image has changed. */
function showWork() {
  const { labels: values, colours, can_undo, can_redo, prompt, unsaved, revision } = work.state;
  if (work.id && viewer.style.takeColours(values, colours)) viewer.restyle();
  if (revision !== undefined) studies.mark(work.id, unsaved);
  for (const one of findAll(NEED_AN_IMAGE, HTMLButtonElement)) one.disabled = !work.id;
  button("#undo").disabled = !can_undo;
  button("#redo").disabled = !can_redo;
  result.show(Boolean(viewer.meta?.series));
  overlay.prompts = [prompt, ...work.pending];
  overlay.draw();
  const { meta } = viewer;
  const isFlat = viewer.isFlat || Boolean(meta?.note);
  const facts = meta ? labelFacts(values, viewer.labels.counts(), meta.affine, isFlat) : [];
  labels.show(facts, work.value(labels.name));
  slices.show();
  showSeconds(work.id ? work.seconds : 0);
}

/** @param {import("./types.js").Voxel | null} voxel under the mouse */
function showVoxel(voxel) {
  if (!voxel) return showPlace(null, "", undefined);
  const value = viewer.labels.at(voxel);
  const label = value && Object.entries(work.state.labels).find(([, one]) => one === value)?.[0];
  return showPlace(voxel, viewer.intensities.at(voxel, viewer.grid), label || undefined);
}

/** @param {import("./tools/tool.js").Result} gesture what has come of it */
function useGesture({ prompt, painted, erased, hint }) {
  if (hint) say(hint);
  if (painted) work.paint(painted, labels.name, erased);
  if (prompt && proposals.isOpen) pickProposal(prompt);
  else if (prompt) askModel(prompt);
}

/** @param {import("./types.js").Prompt} prompt that is a click on a proposal */
function pickProposal({ foreground = [], background = [] }) {
  const [voxel] = [...foreground, ...background];
  if (!voxel || !proposals.toggleAt(voxel)) say("Click on a proposed object, or close the proposals to go on.");
}

/** A new object begins: where each has a label of its own, that is a numbered one without voxels. */
function beginObject() {
  if (!labels.eachItsOwn || work.pending.length) return;
  const { prompt, labels: values } = work.state;
  const isOpen = prompt.box || prompt.foreground?.length || prompt.background?.length;
  const isFree = / \d+$/.test(labels.name) && !viewer.labels.counts()[values[labels.name]];
  if (!isOpen && !isFree) labels.name = nextObject(values, labels.name);
}

/** The image, and its labels that have voxels. */
function labelsWithVoxels() {
  const counts = viewer.labels.counts();
  const values = Object.entries(work.state.labels).filter(([, value]) => counts[value]);
  return { id: work.id, client: client(), labels: values };
}

/** @param {import("./types.js").Prompt} prompt */
function askModel(prompt) {
  if (!models.chosen) {
    say("This server offers no model that takes prompts.", "warning");
    return;
  }
  const across = prompt.plane ? viewer.meta.planes[prompt.plane] : SLICES;
  const ends = prompt.box?.slice(2 * across, 2 * across + 2) ?? [0, 0];
  if (models.chosenModel.dimension === 2 && ends[0] < ends[1]) {
    say("This model segments one slice of the box. Choose one through the volume for all of them.");
  }
  const refine = models.takeRefine();
  if (!refine) beginObject();
  const locked = labels.lockedNames(work.state.labels);
  if (locked.includes(labels.name)) {
    say(`${labels.name} is locked. Unlock it, or choose another label.`, "warning");
    return;
  }
  const { chosen: model, overwrite } = models;
  work.prompt({ model, label: labels.name, overwrite, locked, ...prompt, ...(refine ? { refine } : {}) });
}

/** @param {number} step */
function moveSlice(step) {
  if (!viewer.meta) return;
  const plane = viewer.view === "multi" ? (pointer.plane ?? viewer.drawingPlane) : viewer.view;
  viewer.setSlice(plane, viewer.slice(plane) + step);
}

function clear() {
  work.clear(labels.lockedNames(work.state.labels));
}

function unmeasure() {
  if (pointer.measuring.removeLast()) overlay.draw();
}

function describeImage() {
  const words = describe(viewer.tiles(), viewer.intensities.window);
  if (imageCanvas.ariaLabel !== words) imageCanvas.ariaLabel = words;
}

function wire() {
  onClick("#undo", () => work.undo());
  onClick("#redo", () => work.redo());
  onClick("#accept", () => work.accept());
  onClick("#clear", () => clear());
  models.onSegment((request) => work.segment({ ...request, locked: labels.lockedNames(work.state.labels) }));
  overlay.layers.push((pen, tile) => pointer.measuring.drawAll(pen, tile));
  overlay.above.push((pen) => cursor.draw(pen));
  new TouchGestures(overlayCanvas, viewer, () => say("Drag up and down for brightness, left and right for contrast."));
  wireDialogs();
  listen(pointer.tools, {
    slice: moveSlice,
    undo: () => work.state.can_undo && work.undo(),
    redo: () => work.state.can_redo && work.redo(),
    accept: () => work.accept(),
    tool: (tool) => toolbar.choose(tool),
    view: (view) => display.setView(view),
    mask: () => display.toggleMask(),
    invert: () => display.invert(),
    reset: () => display.reset(),
    unmeasure,
    fit: () => viewer.meta && viewer.fit(),
    help: showHelp,
    cancel: () => pointer.cancel(),
  });
  viewer.onDraw = () => {
    overlay.draw();
    slider.show();
    if (!viewer.meta) return;
    describeImage();
    display.showWindow();
  };
}

async function start() {
  wire();
  showWork();
  if (!document.createElement("canvas").getContext("webgl2")) {
    say("This browser draws no WebGL 2, which the viewer needs. Switch on hardware acceleration.", "error");
    return;
  }
  await viewer.attach();
  await studies.watch();
}

start().catch(fail);
