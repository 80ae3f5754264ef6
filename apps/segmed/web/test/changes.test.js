import assert from "node:assert/strict";
import { test } from "node:test";
import { deflateSync, inflateSync } from "node:zlib";
import { decode, decodeAll, encode } from "../src/server/changes.js";

const RECTANGLE = { k: 7, i: [2, 5], j: [1, 3], values: Uint8Array.from([0, 1, 1, 3, 0, 255]) };

test("what the server deflates is read", async () => {
  const { k, i, j, values } = RECTANGLE;
  const data = deflateSync(values).toString("base64");
  assert.deepEqual(await decode({ k, i, j, data }), RECTANGLE);
  assert.deepEqual(
    await decodeAll([
      { k, i, j, data },
      { k: 8, i, j, data },
    ]),
    [RECTANGLE, { ...RECTANGLE, k: 8 }],
  );
});

test("what the page deflates is zlib's format", async () => {
  const { data, ...place } = await encode(RECTANGLE);
  assert.deepEqual(place, { k: 7, i: [2, 5], j: [1, 3] });
  assert.deepEqual([...inflateSync(Buffer.from(data, "base64"))], [...RECTANGLE.values]);
});

test("more bytes than fit into one call come back as they were", async () => {
  let noise = 1; // which deflates badly
  const values = Uint8Array.from({ length: 400 * 500 }, () => (noise = (noise * 48271) % 2147483647) >> 8);
  const there = await encode({ k: 0, i: [0, 400], j: [0, 500], values });
  assert.ok(there.data.length > 0x8000 * 2);
  assert.deepEqual((await decode(there)).values, values);
});
