import assert from "node:assert/strict";
import { test } from "node:test";
import { Grid } from "../src/image/grid.js";
import { linesOf } from "../src/overlay/drawn-lines.js";
import { MaskOutline, crossSection } from "../src/overlay/cross-section.js";
import { Overlay } from "../src/overlay/overlay.js";
import { SHAPE, tileOf } from "./images.js";

/**
 * What a canvas was told to draw.
 * @param {Partial<Overlay>} shown
 * @param {import("../src/image/tile.js").Tile} tile
 */
function drawn(shown, tile) {
  globalThis.window = /** @type {any} */ ({ devicePixelRatio: 1 });
  /** @type {any[][]} */
  const calls = [];
  const pen = new Proxy(
    {},
    {
      get:
        (_, name) =>
        (/** @type {any[]} */ ...given) => {
          calls.push([name, ...given]);
          return { width: 7 * String(given[0]).length }; // of a text
        },
    },
  );
  const canvas = { clientWidth: 200, clientHeight: 100, getContext: () => pen };
  const viewer = { tiles: () => [tile], drawingPlane: tile.plane };
  const overlay = new Overlay(/** @type {any} */ (canvas), /** @type {any} */ (viewer));
  Object.assign(overlay, shown);
  overlay.draw();
  return (/** @type {string} */ name) => calls.filter(([called]) => called === name).map(([, ...given]) => given);
}

test("a mask is cut along every plane, and outlined there", () => {
  // an L on slice 1 and a single voxel on slice 2
  const masks = [
    { k: 1, i: [1, 3], j: [2, 4], values: Uint8Array.from([1, 0, 1, 1]) },
    { k: 2, i: [2, 3], j: [3, 4], values: Uint8Array.from([7]) },
  ];
  const section = (/** @type {number} */ across, /** @type {number} */ index) => {
    const cut = crossSection(masks, across, index);
    return cut && [...cut.low, cut.width, cut.height, ...cut.values];
  };
  assert.deepEqual(section(2, 1), [1, 2, 2, 2, 1, 0, 1, 1]);
  assert.deepEqual(section(2, 2), [2, 3, 1, 1, 1]);
  assert.deepEqual(section(1, 3), [1, 1, 2, 2, 1, 1, 0, 1]); // i to the right, k upwards
  assert.deepEqual(section(0, 2), [2, 1, 2, 2, 0, 1, 0, 1]);
  assert.equal(section(2, 0), null);
  const outline = new MaskOutline(masks);
  assert.equal(outline.voxels, 4);
  assert.deepEqual(outline.lines(2, 2), [
    [
      [1.5, 2.5],
      [2.5, 2.5],
      [2.5, 3.5],
      [1.5, 3.5],
    ],
  ]);
  const outlines = [{ colour: "#fff", outline }];
  for (const [plane, index, corners] of /** @type {const} */ ([
    ["axial", 2, 4],
    ["coronal", 3, 6],
    ["sagittal", 0, 0],
  ])) {
    const { length } = drawn({ outlines }, tileOf(new Grid(SHAPE, [1, 2, 3]), plane, index))("lineTo");
    assert.equal(length, corners && corners - 1);
  }
});

test("a box is drawn around its voxels, on its own slices only", () => {
  const grid = new Grid(SHAPE, [1, 2, 3]);
  const prompts = [{ box: [1, 2, 0, 1, 1, 1] }];
  const boxes = drawn({ prompts }, tileOf(grid)).call(null, "rect").slice(1); // the first one clips
  assert.deepEqual(boxes, [[20 + 80, 30 + 40, -40, -20]]);
  assert.equal(drawn({ prompts }, tileOf(grid, "axial", 2))("rect").length, 1);
});

test("clicks are drawn where they were made, many of them smaller", () => {
  const tile = tileOf(new Grid(SHAPE, [1, 2, 3]));
  const one = drawn({ prompts: [{ foreground: [[0, 0, 1]], background: [[4, 3, 1]] }] }, tile)("arc");
  assert.deepEqual(
    one.map(([x, y, radius]) => [x, y, radius]),
    [
      [110, 65, 6],
      [30, 35, 6],
    ],
  );
  const many = drawn({ prompts: [{ foreground: Array.from({ length: 13 }, () => [2, 2, 1]) }] }, tile)("arc");
  assert.deepEqual(
    many.map(([, , radius]) => radius),
    Array(13).fill(2),
  );
});

test("scribbles and lassos stay on the slice where they were drawn", () => {
  const meta = /** @type {any} */ ({ planes: { axial: 2, coronal: 1, sagittal: 0 } });
  const points = [
    [0, 0],
    [2, 1],
  ];
  const scribbles = [{ k: 1, foreground: false, points, width: 3 }];
  const lines = [...linesOf({ scribbles }, meta), ...linesOf({ lasso: { k: 3, points }, plane: "coronal" }, meta)];
  assert.deepEqual(
    lines.map(({ axis, k, closed, foreground }) => [axis, k, closed, foreground]),
    [
      [2, 1, false, false],
      [1, 3, true, true],
    ],
  );
  const grid = new Grid(SHAPE, [1, 2, 3]);
  const onAxial = drawn({ prompts: [{ lines }] }, tileOf(grid));
  assert.deepEqual(onAxial("lineTo").slice(0, 2), [
    [110, 65],
    [70, 55],
  ]);
  assert.equal(onAxial("closePath").length, 0);
  assert.equal(drawn({ prompts: [{ lines }] }, tileOf(grid, "axial", 2))("lineTo").length, 0);
  assert.equal(drawn({ prompts: [{ lines }] }, tileOf(grid, "coronal", 3))("closePath").length, 1);
});

test("slices are numbered from 1", () => {
  const tile = tileOf(new Grid(SHAPE, [1, 2, 3]), "sagittal", 4);
  assert.equal(drawn({}, tile)("fillText")[0][0], "5"); // there is room for no more
  const axial = tileOf(new Grid([20, 4, 3], [1, 2, 3]), "axial", 1);
  assert.equal(drawn({}, axial)("fillText")[0][0], "Axial 2 / 3");
  assert.equal(drawn({}, tileOf(new Grid([5, 4, 1], [1, 2, 3]), "axial", 0))("fillText").length, 0);
});
