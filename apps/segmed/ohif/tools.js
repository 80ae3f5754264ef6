// Mouse tools: a box and clicks of our own, which leave those of OHIF and of MONAI Label's panel alone.

const GROUPS = ['mpr', 'default'];
const COMPLETED = 'CORNERSTONE_TOOLS_ANNOTATION_COMPLETED';
const POINT_COLOURS = { foreground: 'rgb(80, 255, 120)', background: 'rgb(255, 90, 90)' };
export const BOX = 'SegMedBox';
export const POINT = 'SegMedPoint';
export const BRUSH = 'CircularBrush';
export const ERASER = 'CircularEraser';

let kind = 'foreground'; // of the next click
const drawn = new Map(); // annotation → [kind, voxel]

const groups = () => GROUPS.map(id => window.services.toolGroupService.getToolGroup(id)).filter(Boolean);
const annotations = () => window.cornerstoneTools.annotation;

/**
 * Register the tools, once per page.
 * @param {(corners: number[][]) => void} onBox corners in mm
 * @param {(kind: string, world: number[], mark: object) => void} onPoint kind, place in mm, and the mark
 */
export function register(onBox, onPoint) {
  const { RectangleROITool, ProbeTool, addTool } = window.cornerstoneTools;
  const named = (Tool, name) => {
    const Own = class extends Tool {};
    Own.toolName = name;
    addTool(Own);
  };
  named(RectangleROITool, BOX);
  named(ProbeTool, POINT);
  window.cornerstone.eventTarget.addEventListener(COMPLETED, ({ detail: { annotation } }) => {
    const { points } = annotation.data.handles;
    if (annotation.metadata.toolName === BOX) {
      const corners = points.map(point => Array.from(point));
      setTimeout(() => remove(annotation)); // OHIF is still at work on it
      onBox(corners);
    } else if (annotation.metadata.toolName === POINT) {
      annotations().locking.setAnnotationLocked(annotation.annotationUID, true);
      annotations().config.style.setAnnotationStyles(annotation.annotationUID, { color: POINT_COLOURS[kind] });
      onPoint(kind, Array.from(points[0]), annotation);
    }
  });
}

/**
 * Have the primary mouse button use a tool.
 * @param {string} tool
 * @param {string} pointKind foreground or background
 */
export function use(tool, pointKind = kind) {
  kind = pointKind;
  for (const group of groups()) {
    if (!group.hasTool(tool)) {
      group.addTool(tool, { getTextLines: () => [] });
    }
  }
  window.commandsManager.runCommand('setToolActiveToolbar', { toolName: tool, toolGroupIds: GROUPS });
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
  window.services.cornerstoneViewportService.getRenderingEngine().render();
}

/**
 * Remember what a mark stands for.
 * @param {object} annotation the mark
 * @param {string} pointKind foreground or background
 * @param {number[]} voxel of the server's image
 */
export const keep = (annotation, pointKind, voxel) => drawn.set(annotation, [pointKind, voxel.join()]);

/**
 * Remove the marks of clicks that are not part of the prompt.
 * @param {{foreground?: number[][], background?: number[][]} | undefined} prompt
 */
export function keepOnly(prompt) {
  const left = { foreground: new Set(), background: new Set() };
  for (const pointKind of Object.keys(left)) {
    (prompt?.[pointKind] ?? []).forEach(point => left[pointKind].add(point.map(Math.round).join()));
  }
  [...drawn].filter(([, [pointKind, voxel]]) => !left[pointKind].has(voxel)).forEach(([mark]) => remove(mark));
}
