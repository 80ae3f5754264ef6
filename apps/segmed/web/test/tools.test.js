import assert from "node:assert/strict";
import { test } from "node:test";
import { Grid } from "../src/image/grid.js";
import { BoxTool } from "../src/tools/box.js";
import { NegativeClickTool, PositiveClickTool } from "../src/tools/click.js";
import { between, disc, nearestVoxel, withoutRepetitions } from "../src/tools/geometry.js";
import { MeasureTool, distance } from "../src/tools/measure.js";
import { CrosshairTool, WindowTool } from "../src/tools/navigation.js";
import { BrushTool, EraserTool } from "../src/tools/paint.js";
import { LassoTool, NegativeScribbleTool, PositiveScribbleTool } from "../src/tools/trace.js";
import { plainTile, tileOf } from "./images.js";

const SETTINGS = { size: 3 };

/** A viewer that notes what it is told. */
function viewer() {
  const told = /** @type {any[]} */ ([]);
  const labels = { paint: (/** @type {any[]} */ ...given) => told.push(["paint", ...given]), at: () => 0 };
  return /** @type {any} */ ({
    told,
    labels,
    meta: { planes: { axial: 2, coronal: 1, sagittal: 0 } },
    slice: () => 1,
    style: { locked: new Set() },
    intensities: { window: [100, 300] },
    goTo: (/** @type {number[]} */ voxel) => told.push(["goTo", voxel]),
  });
}

/**
 * What has come of a gesture.
 * @param {import("../src/tools/tool.js").Tool} tool
 */
const ended = (tool, x = 0, y = 0) => /** @type {import("../src/tools/tool.js").Result} */ (tool.release(x, y));

/**
 * The middle of a voxel of the plain tile on the screen.
 * @param {number} i
 * @param {number} j
 */
const middle = (i, j) => plainTile().toScreen([i, j]);

test("a disc is round in mm, and holds at least the voxel below the mouse", () => {
  const tile = tileOf(new Grid([21, 21, 3], [1, 2, 3]));
  const [x, y] = tile.toScreen([10, 10]);
  const around = disc(tile, x, y, 8).map(([i, j]) => [i - 10, j - 10]);
  assert.ok(around.every(([i, j]) => Math.hypot(2 * i, j) <= 4)); // mm; voxels are 2 mm wide and 1 mm high
  assert.equal(around.length, 9 + 2 * 7 + 2 * 1);
  assert.deepEqual(disc(tile, x, y, 1), [[10, 10, 1]]);
  assert.deepEqual(disc(tile, x, y, 0), [[10, 10, 1]]);
});

test("a disc ends where the image does", () => {
  const [x, y] = middle(0, 0);
  assert.ok(disc(plainTile(), x, y, 4).every((voxel) => plainTile().grid.contains(voxel)));
  assert.deepEqual(nearestVoxel(plainTile(), 0, 0), [4, 3, 1]);
});

test("places between two leave no gap and end at the second", () => {
  const places = between([0, 0], [6, 8]);
  assert.equal(places.length, 5);
  assert.deepEqual(places.at(-1), [6, 8]);
  assert.deepEqual(between([1, 1], [1, 1]), [[1, 1]]);
});

test("points are not repeated", () => {
  const points = [[1, 1], [1, 1], [2, 1], [1, 1]]; // prettier-ignore
  assert.deepEqual(withoutRepetitions(points), [[1, 1], [2, 1], [1, 1]]); // prettier-ignore
});

test("a box has its corners in order, whichever was first", () => {
  const tool = new BoxTool(viewer(), SETTINGS);
  tool.press(plainTile(), ...middle(3, 1));
  assert.equal(tool.move(...middle(2, 2)), undefined);
  assert.deepEqual(tool.release(...middle(1, 3)), { prompt: { box: [1, 3, 1, 3, 1, 1] } });
});

test("a click is no box", () => {
  const tool = new BoxTool(viewer(), SETTINGS);
  tool.press(plainTile(), ...middle(3, 1));
  const result = tool.release(...middle(3, 1));
  assert.match(result && result.hint, /draw the box/);
});

test("clicks tell their voxel at once and go there", () => {
  const shown = viewer();
  const prompt = { foreground: [[3, 1, 1]] };
  assert.deepEqual(new PositiveClickTool(shown, SETTINGS).press(plainTile(), ...middle(3, 1)), { prompt });
  assert.deepEqual(shown.told, [["goTo", [3, 1, 1]]]);
  const beside = new NegativeClickTool(shown, SETTINGS).press(plainTile(), ...middle(0, 2));
  assert.deepEqual(beside, { prompt: { background: [[0, 2, 1]] } });
  assert.deepEqual(new PositiveClickTool(shown, SETTINGS).press(plainTile(), 0, 0), {});
});

test("scribbles tell their line, kind and width", () => {
  for (const [Tool, foreground] of /** @type {const} */ ([
    [PositiveScribbleTool, true],
    [NegativeScribbleTool, false],
  ])) {
    const tool = new Tool(viewer(), SETTINGS);
    tool.press(plainTile(), ...middle(0, 0));
    tool.move(...middle(1, 0));
    tool.move(...middle(1, 0));
    tool.move(-500, middle(0, 2)[1]); // left of the image
    const points = [[0, 0], [1, 0], [4, 2]]; // prettier-ignore
    assert.deepEqual(ended(tool), { prompt: { scribbles: [{ k: 1, foreground, points, width: 3 }] } });
  }
});

test("a lasso needs three points", () => {
  const tool = new LassoTool(viewer(), SETTINGS);
  tool.press(plainTile(), ...middle(0, 0));
  tool.move(...middle(3, 0));
  assert.match(ended(tool).hint ?? "", /around the object/);
  tool.press(plainTile(), ...middle(0, 0));
  tool.move(...middle(3, 0));
  tool.move(...middle(3, 2));
  assert.deepEqual(ended(tool), { prompt: { lasso: { k: 1, points: [[0, 0], [3, 0], [3, 2]] } } }); // prettier-ignore
});

test("a stroke paints each voxel once, with the label's value or none", () => {
  for (const [Tool, value, erased] of /** @type {const} */ ([
    [BrushTool, 5, false],
    [EraserTool, 0, true],
  ])) {
    const shown = viewer();
    const tool = new Tool(shown, { size: 1 }, () => 5);
    tool.press(plainTile(), ...middle(0, 1));
    tool.move(...middle(3, 1));
    tool.move(...middle(0, 1));
    const expected = [0, 1, 2, 3].map((i) => [i, 1, 1]);
    assert.deepEqual(ended(tool), { painted: expected, erased });
    assert.deepEqual(
      shown.told.flatMap((/** @type {any[]} */ [, voxels]) => voxels),
      expected,
    );
    assert.ok(shown.told.every((/** @type {any[]} */ [, , with_]) => with_ === value));
  }
});

test("a stroke beside the image is nothing", () => {
  const tool = new BrushTool(viewer(), { size: 1 }, () => 5);
  tool.press(plainTile(), 0, 0);
  assert.deepEqual(ended(tool), {});
});

test("the crosshair stays in the image", () => {
  const shown = viewer();
  const tool = new CrosshairTool(shown, SETTINGS);
  tool.press(plainTile(), ...middle(0, 0));
  tool.move(...middle(2, 2));
  tool.release(0, 0);
  assert.deepEqual(shown.told, [["goTo", [2, 2, 1]]]);
});

test("up is brighter with the same contrast, right is less contrast at the same brightness", () => {
  const shown = viewer();
  const tool = new WindowTool(shown, SETTINGS);
  tool.press(plainTile(), 100, 100);
  tool.move(100, 100 - 150);
  assert.deepEqual(shown.intensities.window, [0, 200]);
  tool.move(100 + 150, 100);
  assert.deepEqual(shown.intensities.window, [0, 400]);
});

test("distances are in mm, whatever the voxels are", () => {
  const tile = tileOf(new Grid([21, 21, 3], [1, 2, 3])); // voxels of 2 mm by 1 mm
  assert.equal(distance(tile, [0, 0], [3, 8]), 10);
  const tool = new MeasureTool(viewer(), SETTINGS);
  tool.press(tile, ...tile.toScreen([1, 1]));
  assert.ok(ended(tool, ...tile.toScreen([1, 1])).hint);
  tool.press(tile, ...tile.toScreen([1, 1]));
  tool.release(...tile.toScreen([4, 9]));
  assert.equal(tool.measures.length, 1);
  assert.ok(Math.abs(distance(tile, tool.measures[0].from, tool.measures[0].to) - 10) < 1e-9);
  assert.ok(tool.removeLast() && !tool.removeLast());
});

test("what is painted leaves locked labels, and a locked label is not painted", () => {
  const locked = viewer();
  locked.labels.at = (/** @type {number[]} */ [i]) => (i === 2 ? 7 : 0);
  locked.style.locked.add(7);
  const brush = new BrushTool(locked, { size: 9 }, () => 1);
  brush.press(plainTile(), ...middle(2, 2));
  const { painted } = ended(brush);
  assert.ok(painted.length && painted.every(([i]) => i !== 2));
  const refused = new BrushTool(locked, SETTINGS, () => 7).press(plainTile(), ...middle(1, 1));
  assert.match(/** @type {any} */ (refused).hint, /locked/);
});
