import assert from "node:assert/strict";
import { test } from "node:test";
import { actionOf, helpRows } from "../src/keyboard.js";
import { BoxTool } from "../src/tools/box.js";
import { PositiveClickTool } from "../src/tools/click.js";

const TOOLS = [new BoxTool(null, { size: 8 }), new PositiveClickTool(null, { size: 8 })];

/**
 * What a key has done, as words.
 * @param {string} key
 * @param {object} held other keys
 */
function pressed(key, held = {}) {
  /** @type {any[]} */
  const done = [];
  const names = ["slice", "undo", "redo", "accept", "tool", "view", "mask", "fit", "help", "cancel"];
  const actions = Object.fromEntries(names.map((name) => [name, (/** @type {any} */ one) => done.push(name, one)]));
  const event = { key, ctrlKey: false, metaKey: false, altKey: false, shiftKey: false, ...held };
  actionOf(event, TOOLS, /** @type {any} */ (actions))?.();
  return done.filter((one) => one !== undefined).map((one) => one.name ?? one);
}

test("slices, views and tools have keys", () => {
  assert.deepEqual(pressed("ArrowUp"), ["slice", 1]);
  assert.deepEqual(pressed("["), ["slice", -1]);
  assert.deepEqual(pressed("PageDown"), ["slice", -5]);
  assert.deepEqual(pressed("3"), ["view", "sagittal"]);
  assert.deepEqual(pressed("b"), ["tool", "box"]);
  assert.deepEqual(pressed("P", { shiftKey: true }), ["tool", "plus"]);
  assert.deepEqual(pressed("Escape"), ["cancel"]);
  assert.deepEqual(pressed("x"), []);
});

test("undo and redo need Ctrl or Cmd, and other keys must not have them", () => {
  assert.deepEqual(pressed("z", { ctrlKey: true }), ["undo"]);
  assert.deepEqual(pressed("Z", { metaKey: true, shiftKey: true }), ["redo"]);
  assert.deepEqual(pressed("y", { ctrlKey: true }), ["redo"]);
  assert.deepEqual(pressed("b", { ctrlKey: true }), []);
  assert.deepEqual(pressed("b", { altKey: true }), []);
});

test("the help has a row for each tool", () => {
  const rows = helpRows(TOOLS);
  assert.ok(rows.some(([key, words]) => key === "B" && words === "draw a box around the object"));
  assert.equal(rows.length, 12 + TOOLS.length);
});
