import assert from "node:assert/strict";
import { test } from "node:test";
import { Grid } from "../src/image/grid.js";
import { axisAcross, inPlane, promptPlane, shownNumber, storedIndex } from "../src/image/planes.js";
import { dragged, sideAt } from "../src/tools/box-handles.js";
import { BoxTool } from "../src/tools/box.js";
import { PositiveClickTool } from "../src/tools/click.js";
import { LassoTool, PositiveScribbleTool } from "../src/tools/trace.js";
import { SHAPE, tileOf } from "./images.js";

const META = /** @type {any} */ ({ planes: { axial: 2, coronal: 1, sagittal: 0 } });
const PLAIN = new Grid(SHAPE, [1, 2, 3]);

/** @param {number} slice shown now */
const viewer = (slice) => /** @type {any} */ ({ meta: META, slice: () => slice, goTo() {} });

test("planes are told by their stored axis, and that of the slices not at all", () => {
  assert.deepEqual(promptPlane(META, 2), {});
  assert.deepEqual(promptPlane(META, 1), { plane: "coronal" });
  const turned = new Grid([3, 4, 5], [3, -1, 2]);
  assert.equal(axisAcross(turned, "sagittal"), 2);
  assert.equal(axisAcross(turned, "coronal"), 0);
  assert.deepEqual(inPlane(0), [1, 2]);
});

test("slices have the number that the screen shows", () => {
  const turned = new Grid(SHAPE, [1, -2, 3]);
  for (const grid of [PLAIN, turned]) {
    for (let index = 0; index < 4; index++) {
      assert.equal(storedIndex(grid, 1, shownNumber(grid, 1, index)), index);
    }
  }
  assert.equal(shownNumber(turned, 1, 0), 4);
  assert.equal(storedIndex(PLAIN, 2, 99), 2);
});

test("prompts are drawn in any plane", () => {
  const tile = tileOf(PLAIN, "coronal", 2); // x to the left, z upwards
  const at = (/** @type {number} */ i, /** @type {number} */ k) => tile.toScreen([i, k]);
  const box = new BoxTool(viewer(2), { size: 3 });
  box.press(tile, ...at(1, 0));
  assert.deepEqual(box.release(...at(3, 2)), { prompt: { box: [1, 3, 2, 2, 0, 2], plane: "coronal" } });
  const click = new PositiveClickTool(viewer(2), { size: 3 });
  assert.deepEqual(click.press(tile, ...at(4, 1)), { prompt: { foreground: [[4, 2, 1]], plane: "coronal" } });
  const lasso = new LassoTool(viewer(2), { size: 3 });
  lasso.press(tile, ...at(0, 0));
  lasso.move(...at(3, 0));
  lasso.move(...at(3, 2));
  const points = [[0, 0], [3, 0], [3, 2]]; // prettier-ignore
  assert.deepEqual(lasso.release(0, 0), { prompt: { lasso: { k: 2, points }, plane: "coronal" } });
  const scribble = new PositiveScribbleTool(viewer(2), { size: 3 });
  scribble.press(tile, ...at(2, 1));
  const result = /** @type {any} */ (scribble.release(0, 0));
  assert.deepEqual(result.prompt.scribbles, [{ k: 2, foreground: true, points: [[2, 1]], width: 3 }]);
  assert.equal(result.prompt.plane, "coronal");
});

test("the wheel draws a box over several slices", () => {
  const tile = tileOf(PLAIN);
  const box = new BoxTool(viewer(2), { size: 3 }); // it shows slice 2 when the button is released
  box.press(tileOf(PLAIN, "axial", 0), ...tile.toScreen([1, 1]));
  assert.deepEqual(box.release(...tile.toScreen([3, 3])), { prompt: { box: [1, 3, 1, 3, 0, 2] } });
});

test("the sides of a box are dragged, also a flat one in the view across it", () => {
  const tile = tileOf(PLAIN, "coronal", 2);
  const box = [1, 3, 1, 3, 1, 1];
  const [x, top] = tile.toScreen([2, 1.5]);
  const upper = sideAt(tile, box, x, top);
  assert.deepEqual(upper, { at: 1, end: 1 });
  assert.deepEqual(dragged(tile, box, upper, ...tile.toScreen([2, 2])), [1, 3, 1, 3, 1, 2]);
  assert.deepEqual(dragged(tile, box, upper, ...tile.toScreen([2, 0])), box); // not beyond the other side
  assert.equal(sideAt(tile, box, 0, 0), null);
  assert.equal(sideAt(tile, box, ...tile.toScreen([0.5, 1.5])), null); // a corner, where another box may begin
  assert.equal(sideAt(tileOf(PLAIN, "coronal", 0), box, x, top), null); // not on this slice
  const open = { box, axis: 2 };
  const tool = new BoxTool(viewer(2), { size: 3 }, () => open);
  tool.press(tile, x, top);
  tool.move(...tile.toScreen([2, 2]));
  assert.deepEqual(tool.release(0, 0), { prompt: { box: [1, 3, 1, 3, 1, 2] } });
});
