import assert from "node:assert/strict";
import { test } from "node:test";
import { TouchGestures } from "../src/tools/touch.js";

/** Fingers on a canvas: what the tools hear, and what the viewer is told. */
function hand() {
  /** @type {any[][]} */
  const heard = [];
  /** @type {Object<string, (event: any) => void>} */
  const listeners = {};
  globalThis.window = /** @type {any} */ (globalThis);
  /** @type {(() => void)[]} */
  const frames = [];
  globalThis.requestAnimationFrame = /** @type {any} */ ((/** @type {() => void} */ draw) => frames.push(draw));
  globalThis.PointerEvent = /** @type {any} */ (
    class {
      /** @param {string} type @param {any} what */
      constructor(type, what) {
        Object.assign(this, { type, ...what });
      }
    }
  );
  const tile = { plane: "axial", index: 10 };
  const viewer = {
    tileAt: () => tile,
    zoom: (/** @type {number} */ factor) => heard.push(["zoom", Number(factor.toFixed(3))]),
    setSlice: (/** @type {string} */ _, /** @type {number} */ index) => {
      tile.index = index;
      heard.push(["slice", index]);
    },
  };
  const canvas = {
    addEventListener: (/** @type {string} */ type, /** @type {any} */ action) => (listeners[type] = action),
    dispatchEvent: (/** @type {any} */ { type, button, clientX, clientY }) =>
      heard.push([type, button, clientX, clientY]),
    getBoundingClientRect: () => ({ left: 0, top: 0 }),
  };
  new TouchGestures(/** @type {any} */ (canvas), /** @type {any} */ (viewer), () => heard.push(["felt"]));
  const send = (
    /** @type {string} */ type,
    /** @type {number} */ id,
    /** @type {number} */ x,
    /** @type {number} */ y,
  ) =>
    listeners[`pointer${type}`]({
      type: `pointer${type}`,
      pointerId: id,
      clientX: x,
      clientY: y,
      pointerType: "touch",
      preventDefault() {},
      stopImmediatePropagation() {},
    });
  const draw = () => frames.splice(0).forEach((look) => look());
  return { heard, send, draw };
}

test("a tap and a stroke of one finger are those of the mouse", () => {
  const { heard, send } = hand();
  send("down", 1, 10, 20);
  assert.deepEqual(heard, []); // a second finger may come
  send("up", 1, 11, 20);
  assert.deepEqual(heard.splice(0), [["pointerdown", 0, 10, 20], ["pointerup", 0, 11, 20]]); // prettier-ignore
  send("down", 1, 10, 20);
  send("move", 1, 40, 20);
  send("up", 1, 50, 20);
  assert.deepEqual(heard.map(([type]) => type), ["pointerdown", "pointermove", "pointerup"]); // prettier-ignore
});

test("two fingers scroll or zoom, and never draw", () => {
  const { heard, send, draw } = hand();
  send("down", 1, 100, 100);
  send("down", 2, 200, 100);
  for (const y of [128, 156]) {
    send("move", 1, 100, y);
    send("move", 2, 200, y);
    draw();
  }
  assert.deepEqual(heard, [["slice", 8], ["slice", 6]]); // prettier-ignore
  send("up", 1, 100, 156);
  send("move", 2, 220, 156); // the finger that is left does nothing
  send("up", 2, 220, 156);
  heard.length = 0;
  send("down", 1, 100, 100);
  send("down", 2, 200, 100);
  send("move", 2, 300, 100);
  draw();
  assert.deepEqual(heard, [["zoom", 2]]);
});

test("a finger that is held changes brightness", async () => {
  const { heard, send } = hand();
  send("down", 1, 10, 20);
  await new Promise((done) => setTimeout(done, 600));
  send("move", 1, 10, 60);
  send("up", 1, 10, 60);
  assert.deepEqual(heard.map(([type, button]) => `${type} ${button}`), ["felt undefined", "pointerdown 2", "pointermove 0", "pointerup 2"]); // prettier-ignore
});
