import assert from "node:assert/strict";
import { test } from "node:test";
import { Grid, PLANES } from "../src/image/grid.js";
import { ORDERS, SHAPE, tileOf, voxels } from "./images.js";

test("each order of the axes gives every stored voxel a place of its own, and back", () => {
  assert.equal(ORDERS.length, 48);
  for (const order of ORDERS) {
    const grid = new Grid(SHAPE, order);
    const places = new Set();
    for (const [i, j, k] of voxels(grid)) {
      const [x, y, z] = grid.toShown([i, j, k]);
      assert.equal(grid.offset(i, j, k), x + grid.shown[0] * (y + grid.shown[1] * z));
      assert.deepEqual(grid.toStored([x, y, z]), [i, j, k]);
      places.add(grid.offset(i, j, k));
    }
    assert.equal(places.size, grid.size);
    assert.equal(Math.min(...places), 0);
    assert.equal(Math.max(...places), grid.size - 1);
  }
});

test("a mirrored axis counts from the other end", () => {
  const grid = new Grid(SHAPE, [-1, 3, 2]);
  assert.deepEqual(grid.shown, [5, 3, 4]);
  assert.deepEqual(grid.toShown([0, 1, 2]), [4, 2, 1]);
  assert.equal(PLANES[grid.depth], "coronal");
});

test("voxels beside the image are known and brought into it", () => {
  const grid = new Grid(SHAPE, [1, 2, 3]);
  assert.ok(grid.contains([4, 3, 2]));
  assert.ok(!grid.contains([5, 0, 0]));
  assert.ok(!grid.contains([0, -1, 0]));
  assert.deepEqual(grid.clamped([7, -2, 1]), [4, 0, 1]);
});

test("a place on the screen and its voxel agree in all planes of all orders", () => {
  for (const order of ORDERS) {
    const grid = new Grid(SHAPE, order);
    for (const plane of PLANES) {
      const tile = tileOf(grid, plane, 2);
      for (const voxel of voxels(grid).filter((one) => grid.toShown(one)[tile.depth] === 2)) {
        const shown = grid.toShown(voxel);
        const [x, y] = tile.toScreen(tile.axes.map((axis) => shown[axis]));
        assert.ok(tile.holds(x, y));
        assert.equal(String(tile.toStored(x, y)), String(voxel));
        assert.equal(String(tile.toStored(x + 4.9, y - 4.9)), String(voxel)); // half an edge of 1 mm
      }
    }
  }
});

test("x runs to the left and y upwards", () => {
  const tile = tileOf(new Grid(SHAPE, [1, 2, 3]));
  assert.deepEqual(tile.toScreen([0, 0]), [20 + 90, 30 + 35]);
  assert.deepEqual(tile.toScreen([4, 3]), [20 + 10, 30 + 5]);
  assert.deepEqual(tile.pixels(2), [20, 20]);
  assert.ok(!tile.holds(20 + 100, 30));
});
