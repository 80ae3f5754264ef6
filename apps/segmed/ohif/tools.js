// Mouse tools: a box, clicks, a lasso and scribbles of our own, which leave those of OHIF and of MONAI Label's panel alone.

const GROUPS = ['mpr', 'default'];
const COMPLETED = 'CORNERSTONE_TOOLS_ANNOTATION_COMPLETED';
const COLOURS = { foreground: 'rgb(80, 255, 120)', background: 'rgb(255, 90, 90)' };
export const BOX = 'SegMedBox';
export const POINT = 'SegMedPoint';
export const LASSO = 'SegMedLasso';
export const SCRIBBLE = 'SegMedScribble';
export const BRUSH = 'CircularBrush';
export const ERASER = 'CircularEraser';

const SETTINGS = {
  [LASSO]: { allowOpenContours: false, calculateStats: false },
  [SCRIBBLE]: { closeContourProximity: -1, calculateStats: false },
};

let kind = 'foreground'; // of the next click or scribble
const drawn = new Map(); // annotation → {kind, key, waiting: whether its prompt is not answered yet}

const groups = () => GROUPS.map(id => window.services.toolGroupService.getToolGroup(id)).filter(Boolean);
const annotations = () => window.cornerstoneTools.annotation;

/**
 * @typedef {object} Drawn what is called when something has been drawn; places in mm
 * @property {(corners: number[][]) => void} box
 * @property {(kind: string, place: number[], mark: object) => void} point
 * @property {(tool: string, kind: string, places: number[][], normal: number[], mark: object) => void} line with the
 *   normal of the view
 */

/**
 * Register the tools, once per page.
 * @param {Drawn} on
 */
export function register(on) {
  const { RectangleROITool, ProbeTool, PlanarFreehandROITool, addTool } = window.cornerstoneTools;
  const named = (Tool, name) => {
    const Own = class extends Tool {};
    Own.toolName = name;
    addTool(Own);
  };
  named(RectangleROITool, BOX);
  named(ProbeTool, POINT);
  named(PlanarFreehandROITool, LASSO);
  named(withCrossings(PlanarFreehandROITool), SCRIBBLE);
  window.cornerstone.eventTarget.addEventListener(COMPLETED, ({ detail: { annotation } }) => {
    const { points } = annotation.data.handles;
    const { toolName, viewPlaneNormal } = annotation.metadata;
    if (toolName === BOX) {
      const corners = points.map(point => Array.from(point));
      setTimeout(() => remove(annotation)); // OHIF is still at work on it
      on.box(corners);
    } else if (toolName === POINT) {
      fix(annotation, kind);
      on.point(kind, Array.from(points[0]), annotation);
    } else if (toolName === LASSO || toolName === SCRIBBLE) {
      fix(annotation, toolName === LASSO ? 'foreground' : kind);
      const line = annotation.data.contour.polyline.map(place => Array.from(place));
      on.line(toolName, kind, line, Array.from(viewPlaneNormal), annotation);
    }
  });
}

/** A pen whose lines may cross themselves; OHIF's would close them there. */
const withCrossings = Tool =>
  class extends Tool {
    constructor(...given) {
      super(...given);
      this.findCrossingIndexDuringCreate = () => undefined;
    }
  };

/** Fix a mark that has been drawn, in the colour of its kind; lines of what is not wanted are dashed. */
function fix({ annotationUID }, markKind) {
  const color = COLOURS[markKind];
  const inAllStates = { color, colorHighlighted: color, colorSelected: color, colorLocked: color };
  const lineDash = markKind === 'background' ? '4,4' : '';
  annotations().locking.setAnnotationLocked(annotationUID, true);
  annotations().config.style.setAnnotationStyles(annotationUID, { ...inAllStates, lineDash });
}

/**
 * Have the primary mouse button use a tool.
 * @param {string} tool
 * @param {string} pointKind foreground or background
 */
export function use(tool, pointKind = kind) {
  kind = pointKind;
  groups().forEach(group => offer(group, tool));
  window.commandsManager.runCommand('setToolActiveToolbar', { toolName: tool, toolGroupIds: GROUPS });
}

function offer(group, tool) {
  if (!group.hasTool(tool)) {
    group.addTool(tool, { getTextLines: () => [], ...SETTINGS[tool] });
  }
}

/**
 * Tool of the primary mouse button, and the kind of the next click.
 * @returns {[string | undefined, string]}
 */
export const used = () => [groups()[0]?.getActivePrimaryMouseButtonTool(), kind];

/** @param {number} mm diameter of brush and eraser */
export function setBrushSize(mm) {
  for (const group of groups()) {
    window.cornerstoneTools.utilities.segmentation.setBrushSizeForToolGroup(group.id, mm);
  }
}

function remove(annotation) {
  annotations().state.removeAnnotation(annotation.annotationUID);
  drawn.delete(annotation);
  redraw();
}

const views = () => window.services.cornerstoneViewportService.getRenderingEngine().getViewports();

/** Draw the marks again: they lie above the images, and drawing those takes many times as long without a graphics card. */
const redraw = () =>
  window.cornerstoneTools.utilities.triggerAnnotationRenderForViewportIds(views().map(view => view.id));

/**
 * Remember what a mark stands for.
 * @param {object} annotation the mark
 * @param {string} markKind foreground, background, stroke or lasso
 * @param {string | number} key voxel of the server's image of a click, number of a stroke
 */
export const keep = (annotation, markKind, key) => drawn.set(annotation, { kind: markKind, key, waiting: true });

/** @param {object} annotation whose prompt has been answered, or failed */
export function answered(annotation) {
  if (drawn.has(annotation)) {
    drawn.get(annotation).waiting = false;
  }
}

/**
 * Number of a stroke that is added to a prompt.
 * @param {{strokes?: number} | undefined} prompt
 */
export function nextStroke(prompt) {
  const strokes = [...drawn.values()].filter(about => about.kind === 'stroke').map(about => about.key);
  return Math.max(prompt?.strokes ?? 0, ...strokes) + 1;
}

/**
 * Remove the marks that are not part of the prompt, save those that have not been answered.
 * @param {{foreground?: number[][], background?: number[][], strokes?: number, lasso?: number[]} | undefined} prompt
 */
export function keepOnly(prompt) {
  const voxels = points => new Set((points ?? []).map(point => point.map(Math.round).join()));
  const clicks = { foreground: voxels(prompt?.foreground), background: voxels(prompt?.background) };
  const latest = [...drawn].findLast(([, { kind: one }]) => one === 'lasso')?.[0]; // which replaces those before
  const stays = (annotation, { kind: one, key, waiting }) =>
    waiting ||
    clicks[one]?.has(key) ||
    (one === 'stroke' && key <= (prompt?.strokes ?? 0)) ||
    (one === 'lasso' && Boolean(prompt?.lasso) && annotation === latest);
  [...drawn].filter(([annotation, about]) => !stays(annotation, about)).forEach(([annotation]) => remove(annotation));
}

/**
 * Draw the clicks, scribbles and lasso of a prompt that have no mark here, such as after the page was loaded again.
 * @param {{axis?: number, foreground?: number[][], background?: number[][], lines?: object[]} | undefined} prompt
 * @param {import('./grid.js').GridMap} map of the series
 */
export function drawMissing(prompt, map) {
  const marked = new Set([...drawn.values()].map(about => `${about.kind} ${about.key}`));
  const add = (tool, one, key, colour, data, normal) => {
    if (!marked.has(`${one} ${key}`)) {
      drawn.set(draw(tool, colour, data, normal), { kind: one, key, waiting: false });
    }
  };
  for (const one of ['foreground', 'background']) {
    for (const click of prompt?.[one] ?? []) {
      const voxel = click.map(Math.round);
      const normal = map.directions[map.axis[prompt.axis ?? 2]];
      add(POINT, one, voxel.join(), one, { handles: { points: [map.world(voxel)] } }, normal);
    }
  }
  let strokes = 0;
  for (const line of prompt?.lines ?? []) {
    const { places: polyline, normal } = map.places(line);
    const data = { handles: { points: [] }, contour: { polyline, closed: line.closed } };
    const colour = line.foreground ? 'foreground' : 'background';
    if (line.closed) {
      add(LASSO, 'lasso', '', colour, data, normal);
    } else {
      add(SCRIBBLE, 'stroke', ++strokes, colour, data, normal);
    }
  }
}

/** A mark as its tool would have made it. */
function draw(tool, colour, { handles, ...rest }, normal) {
  for (const group of groups()) {
    offer(group, tool);
    if (group.getActivePrimaryMouseButtonTool() !== tool) {
      group.setToolPassive(tool); // marks of tools that were never used are not drawn
    }
  }
  const frame = views()[0].getFrameOfReferenceUID();
  const data = { label: '', cachedStats: {}, handles: { ...handles, activeHandleIndex: null }, ...rest };
  const metadata = { toolName: tool, FrameOfReferenceUID: frame, viewPlaneNormal: normal };
  const annotationUID = window.cornerstone.utilities.uuidv4();
  const state = { highlighted: false, invalidated: false, isLocked: true, isVisible: true };
  const mark = { annotationUID, ...state, metadata, data };
  annotations().state.addAnnotation(mark, frame);
  fix(mark, colour);
  redraw();
  return mark;
}
