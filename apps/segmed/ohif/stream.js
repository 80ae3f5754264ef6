// Answers in parts: a long request tells how far it is, and what it has found, before its answer comes.

const SILENT = 30000; // ms without a line, which the server sends every two seconds

/**
 * The objects of a stream of lines of JSON.
 * @param {ReadableStreamDefaultReader<Uint8Array>} reader
 * @returns {AsyncGenerator<any>}
 * @throws {Error} no line came for a long time, or the connection broke
 */
async function* lines(reader) {
  const decoder = new TextDecoder();
  let rest = '';
  for (;;) {
    let timer;
    const silence = new Promise((_, reject) => {
      const error = new Error(`The server has said nothing for ${SILENT / 1000} s. Is it still running?`);
      timer = setTimeout(() => reject(error), SILENT);
    });
    const { done, value } = await Promise.race([reader.read(), silence]).finally(() => clearTimeout(timer));
    rest += decoder.decode(value, { stream: !done });
    const parts = rest.split('\n');
    rest = parts.pop();
    yield* parts.filter(Boolean).map(part => JSON.parse(part));
    if (done) {
      return;
    }
  }
}

/**
 * The answer of a stream.
 * @param {Response} response
 * @param {(progress: {done: number, most: number, left: number | null, changes: object[], labels: object}) => Promise<void>} tell
 * @returns {Promise<any>}
 * @throws {Error & {stale: boolean}} what was shown meanwhile is not valid
 */
export async function answerOf(response, tell) {
  const reader = response.body.getReader();
  try {
    for await (const line of lines(reader)) {
      if (line.event === 'answer') {
        return line;
      }
      if (line.event === 'error') {
        throw Object.assign(new Error(line.detail), { status: line.status });
      }
      await tell(line);
    }
    throw new Error('The connection to the server broke while it was working. Ask again.');
  } catch (error) {
    reader.cancel().catch(() => {});
    throw Object.assign(error, { stale: true });
  }
}

/** The progress in a few words. */
export function progressWords({ done, most, left }) {
  if (!most) {
    return 'Waiting for its turn …';
  }
  return `${done} of at most ${most} slices${left === null ? '' : `, ${Math.max(1, Math.round(left))} s left at most`}`;
}
