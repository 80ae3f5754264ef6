import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

/**
 * A module of the additions to OHIF, whose types are checked apart from those of the page.
 * @param {string} name
 * @returns {Promise<any>}
 */
const ofOhif = (name) => import(`../../ohif/${name}.js`);
const { GridMap } = await ofOhif("grid");
const { answered, drawMissing, keep, keepOnly, nextStroke } = await ofOhif("tools");
const { showRange } = await ofOhif("viewports");

/** @type {string[]} */
let removed;
/** @type {object | undefined} */
let shown;
/** @type {object} what the files tell of their window */
let told;

beforeEach(() => {
  removed = [];
  shown = undefined;
  told = {};
  const viewport = {
    type: "orthographic",
    getImageIds: () => ["a", "b", "c"],
    setProperties: (/** @type {object} */ given) => (shown = given),
    render: () => {},
  };
  const viewports = new Map([["mpr-axial", { viewportId: "mpr-axial" }]]);
  Object.assign(globalThis, {
    window: {
      cornerstone: { metaData: { get: () => told } },
      cornerstoneTools: {
        annotation: { state: { removeAnnotation: (/** @type {string} */ uid) => removed.push(uid) } },
        utilities: { triggerAnnotationRenderForViewportIds: () => {} },
      },
      services: {
        viewportGridService: { getState: () => ({ viewports }) },
        cornerstoneViewportService: {
          getCornerstoneViewport: () => viewport,
          getRenderingEngine: () => ({ getViewports: () => /** @type {object[]} */ ([]) }),
        },
      },
    },
  });
});

test("a line in any view is told by its slice and the two other axes, brought into the image", () => {
  const image = {
    shape: [5, 4, 3],
    affine: [
      [-1, 0, 0, 0],
      [0, -1, 0, 0],
      [0, 0, -2, 4],
      [0, 0, 0, 1],
    ],
  };
  const volume = {
    dimensions: [5, 4, 3],
    origin: [0, 0, 0],
    spacing: [1, 1, 2],
    direction: [1, 0, 0, 0, 1, 0, 0, 0, 1],
  };
  const map = new GridMap(image, volume); // the server counts slices from above
  const axial = map.line(
    [
      [1, 1, 4],
      [9, 2, 4],
    ],
    [0, 0, -1],
  );
  assert.deepEqual(axial, {
    across: 2,
    k: 0,
    points: [
      [1, 1],
      [4, 2],
    ],
  });
  const coronal = map.line([[1, 3, 0]], [0, 1, 0]);
  assert.deepEqual(coronal, { across: 1, k: 3, points: [[1, 2]] });
  const back = map.places({ axis: 1, k: 3, points: [[1, 2]] });
  assert.deepEqual(back, { places: [[1, 3, 0]], normal: [0, 1, 0] });
});

test("marks stay until they are answered, and then as long as the prompt has them", () => {
  const [click, first, second, lasso] = ["click", "first", "second", "lasso"].map((annotationUID) => ({
    annotationUID,
  }));
  keep(click, "foreground", "1,2,3");
  keep(first, "stroke", nextStroke(undefined));
  keep(second, "stroke", nextStroke({ strokes: 0 }));
  keep(lasso, "lasso", "");
  keepOnly({});
  assert.deepEqual(removed, []);
  [click, first, second, lasso].forEach(answered);
  keepOnly({ foreground: [[1, 2, 3]], strokes: 2, lasso: [4] });
  assert.deepEqual(removed, []);
  assert.equal(nextStroke({ strokes: 5 }), 6); // made by another page
  keepOnly({ foreground: [[1, 2, 3]], strokes: 1 });
  assert.deepEqual(removed, ["second", "lasso"]);
  keepOnly(undefined);
  assert.deepEqual(removed, ["second", "lasso", "click", "first"]);
});

test("what a prompt has and nobody has drawn here is drawn once", () => {
  /** @type {any[]} */
  const made = [];
  const { window } = /** @type {any} */ (globalThis);
  const viewport = { getFrameOfReferenceUID: () => "1.2" };
  const engine = { getViewports: () => [viewport] };
  window.services.cornerstoneViewportService.getRenderingEngine = () => engine;
  window.services.toolGroupService = { getToolGroup: () => /** @type {any} */ (undefined) };
  Object.assign(window.cornerstoneTools.annotation, {
    locking: { setAnnotationLocked: () => {} },
    config: { style: { setAnnotationStyles: () => {} } },
  });
  window.cornerstoneTools.annotation.state.addAnnotation = (/** @type {any} */ mark) => made.push(mark);
  window.cornerstone.utilities = { uuidv4: () => `mark ${made.length + 1}` };
  const map = {
    axis: [0, 1, 2],
    directions: [
      [1, 0, 0],
      [0, 1, 0],
      [0, 0, 1],
    ],
    world: (/** @type {number[]} */ voxel) => voxel,
    places: (/** @type {{points: number[][]}} */ { points }) => ({ places: points, normal: [0, 0, 1] }),
  };
  const line = { axis: 2, k: 4, points: [[1, 2]], foreground: true, closed: false };
  const prompt = {
    foreground: [[1, 2, 3]],
    strokes: 1,
    lasso: [4],
    lines: [line, { ...line, closed: true }],
  };
  drawMissing(prompt, map);
  drawMissing(prompt, map);
  assert.deepEqual(
    made.map(({ metadata }) => metadata.toolName),
    ["SegMedPoint", "SegMedScribble", "SegMedLasso"],
  );
  keepOnly({ ...prompt, lasso: undefined });
  assert.deepEqual(removed, ["mark 3"]);
  keepOnly(undefined);
});

test("the server's window is taken where the files name none", () => {
  showRange([0, 800]);
  assert.deepEqual(shown, { voiRange: { lower: 0, upper: 800 } });
  for (const windowWidth of [400, [400, 1500]]) {
    shown = undefined;
    told = { windowWidth };
    showRange([0, 800]);
    assert.equal(shown, undefined);
  }
});
