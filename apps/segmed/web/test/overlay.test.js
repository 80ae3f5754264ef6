import assert from "node:assert/strict";
import { test } from "node:test";
import { Grid } from "../src/image/grid.js";
import { borderEdges } from "../src/overlay/outline.js";
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
        (/** @type {any[]} */ ...given) =>
          calls.push([name, ...given]),
    },
  );
  const canvas = { clientWidth: 200, clientHeight: 100, getContext: () => pen };
  const viewer = { tiles: () => [tile], drawingPlane: tile.plane };
  const overlay = new Overlay(/** @type {any} */ (canvas), /** @type {any} */ (viewer));
  Object.assign(overlay, shown);
  overlay.draw();
  return (/** @type {string} */ name) => calls.filter(([called]) => called === name).map(([, ...given]) => given);
}

test("the border of a mask is where it meets others and the end of the rectangle", () => {
  const edges = borderEdges({ k: 0, i: [10, 12], j: [20, 22], values: Uint8Array.from([1, 0, 2, 2]) });
  const expected = [
    [10, 20, 11, 20],
    [10, 20, 10, 21],
    [11, 20, 11, 21],
    [11, 21, 12, 21],
    [10, 21, 10, 22],
    [12, 21, 12, 22],
    [10, 22, 11, 22],
    [11, 22, 12, 22],
  ];
  assert.deepEqual(edges.map(String).sort(), expected.map(String).sort());
  assert.deepEqual(borderEdges({ k: 0, i: [0, 2], j: [0, 1], values: new Uint8Array(2) }), []);
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

test("slices are numbered from 1", () => {
  const tile = tileOf(new Grid(SHAPE, [1, 2, 3]), "sagittal", 4);
  assert.equal(drawn({}, tile)("fillText")[0][0], "Sagittal 5 / 5");
  assert.equal(drawn({}, tileOf(new Grid([5, 4, 1], [1, 2, 3]), "axial", 0))("fillText").length, 0);
});
