import assert from "node:assert/strict";
import { test } from "node:test";
import { progressWords } from "../src/panels/progress.js";
import { lines, postWatched } from "../src/server/stream.js";

/**
 * A reader of these texts, which then ends, or never does.
 * @param {string[]} texts
 * @param {boolean} ends
 */
function reader(texts, ends = true) {
  const encoder = new TextEncoder();
  const stream = new ReadableStream({
    start(controller) {
      for (const text of texts) controller.enqueue(encoder.encode(text));
      if (ends) controller.close();
    },
  });
  return stream.getReader();
}

test("lines are whole, wherever they were cut", async () => {
  const found = [];
  for await (const line of lines(reader(['{"a": 1}\n{"b"', ': "é', '"}\n']))) found.push(line);
  assert.deepEqual(found, [{ a: 1 }, { b: "é" }]);
});

test("silence is told", async () => {
  const stream = lines(reader(['{"a": 1}\n'], false), 30);
  assert.deepEqual((await stream.next()).value, { a: 1 });
  await assert.rejects(stream.next(), /said nothing/);
});

test("progress is told before the answer, and errors make what was shown stale", async () => {
  /** @type {any[]} */
  const told = [];
  const answer = (/** @type {object[]} */ ...events) => {
    globalThis.fetch = async () => new Response(events.map((one) => `${JSON.stringify(one)}\n`).join(""));
    return postWatched("prompt", {}, (one) => void told.push(one));
  };
  assert.deepEqual(await answer({ event: "progress", done: 1 }, { event: "answer", revision: 4 }), {
    event: "answer",
    revision: 4,
  });
  assert.deepEqual(told, [{ event: "progress", done: 1 }]);
  await assert.rejects(answer({ event: "error", status: 400, detail: "No." }), { message: "No.", stale: true });
  await assert.rejects(answer({ event: "progress", done: 1 }), /stopped while it was working/);
});

test("progress in words", () => {
  assert.equal(progressWords({ done: 0, most: 0, left: null }), "Waiting for its turn …");
  assert.equal(progressWords({ done: 0, most: 1, left: null }), "0 of at most 1 slice");
  assert.equal(progressWords({ done: 3, most: 40, left: 12.4 }), "3 of at most 40 slices, 12 s left at most");
  assert.equal(progressWords({ done: 3, most: 400, left: 600 }), "3 of at most 400 slices, 10 min left at most");
});
