// The server's interface, from wherever this script was loaded.

import { answerOf } from './stream.js';

export const root = new URL('..', import.meta.url);

/** Who works here: the same person after a reload, another one in another browser. */
const anyone = () => `browser-${crypto.getRandomValues(new Uint32Array(2)).join('')}`;
export const client = (localStorage['segmed.client'] ||= anyone());

/**
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<any>}
 * @throws {Error & {status: number}} the server's sentence
 */
async function ask(path, options) {
  const answer = await respond(path, options);
  return answer.json().catch(() => ({}));
}

/**
 * The response to a request that went well.
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<Response>}
 * @throws {Error & {status: number}} the server's sentence
 */
async function respond(path, options) {
  let answer;
  try {
    answer = await fetch(new URL(path, root), options);
  } catch {
    throw new Error('The server does not answer. Is it running?');
  }
  if (answer.status === 401) {
    logIn(`${location.pathname}${location.search}`.slice(root.pathname.length));
  }
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    const detail = typeof told.detail === 'string' ? told.detail : `The server answered ${answer.status}.`;
    throw Object.assign(new Error(detail), { status: answer.status });
  }
  return answer;
}

/** Go to the page of the login, and from there to a page below the server's address. */
const logIn = page => location.assign(new URL(`login?${new URLSearchParams({ next: `/${page}` })}`, root));

/** End the session; the work stays on the server. */
export async function logOut() {
  await fetch(new URL('logout', root), { method: 'POST' });
  logIn('ohif/');
}

const image = series => `api/images/${encodeURIComponent(series)}`;
const json = body => ({ method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) });

/** Models, labels and warnings of the server. */
export const state = () => ask('api/state');
/**
 * Shape and affine of an image.
 * @param {string} series UID
 */
export const describe = series => ask(image(series));
/**
 * What this user has done with an image.
 * @param {string} series UID
 */
export const work = series => ask(`${image(series)}/work?client=${encodeURIComponent(client)}`);
/**
 * Ask for a step of the work.
 * @param {string} series UID
 * @param {string} what such as prompt or undo
 * @param {object} body
 */
export const post = (series, what, body = {}) => ask(`${image(series)}/${what}`, json({ client, ...body }));

/**
 * Ask for a step of the work that may take long.
 * @param {string} series UID
 * @param {string} what prompt or segment
 * @param {object} body
 * @param {(progress: object) => Promise<void>} tell hears how far it is
 */
export async function postWatched(series, what, body, tell) {
  const options = json({ client, ...body });
  options.headers.Accept = 'application/x-ndjson';
  return answerOf(await respond(`${image(series)}/${what}`, options), tell);
}

/**
 * Send a whole label map.
 * @param {string} series UID
 * @param {object} params its place and the names of its values
 * @param {ArrayBuffer} packed deflated values
 */
export function sendLabelmap(series, params, packed) {
  const form = new FormData();
  form.append('params', JSON.stringify({ client, ...params }));
  form.append('file', new Blob([packed]), 'labelmap.bin');
  return ask(`${image(series)}/labelmap`, { method: 'POST', body: form });
}

/**
 * The case to work on next, {} if there is none left.
 * @param {string | undefined} open series that is open, which is not proposed
 */
export async function nextCase(open) {
  const [strategy] = Object.keys((await ask('info/')).strategies);
  return ask(`activelearning/${encodeURIComponent(strategy)}`, json({ client_id: client, open: open ?? '' }));
}
