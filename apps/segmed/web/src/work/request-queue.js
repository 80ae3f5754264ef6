/** Requests that change the same work, one after the other, so that each sees what the one before has done. */

/**
 * @typedef {import("../server/requests.js").Failure} Failure
 *
 * @typedef {object} QueueActions
 * @property {(words: string) => void} busy what is being done; "" at the end
 * @property {(error: Failure) => void} fail
 */

export class RequestQueue {
  #last = Promise.resolve(); // of the requests

  /** @param {QueueActions} actions */
  constructor(actions) {
    this.actions = actions;
    this.waiting = 0; // requests
  }

  /**
   * Wait for what was asked before, then run; failures are shown, and undefined is returned.
   * @template T
   * @param {string} words
   * @param {() => Promise<T>} request
   * @param {(error: Failure) => Promise<void>} mend what to do after a failure, before anything else is asked
   * @returns {Promise<T | undefined>}
   */
  add(words, request, mend) {
    this.#begin(words);
    /** @type {Failure | null} */
    let failure = null;
    const turn = this.#last.then(async () => {
      this.actions.busy(words);
      try {
        return await request();
      } catch (error) {
        failure = error;
        this.actions.fail(error);
        return undefined;
      } finally {
        this.#end();
      }
    });
    this.#last = turn.then(() => (failure ? mend(failure) : undefined));
    return turn;
  }

  /**
   * Run now, as part of what is asked already.
   * @param {string} words
   * @param {() => Promise<void>} request
   */
  async within(words, request) {
    this.#begin(words);
    try {
      await request();
    } finally {
      this.#end();
    }
  }

  /** @param {string} words */
  #begin(words) {
    if (!this.waiting++) this.actions.busy(words);
  }

  #end() {
    if (!--this.waiting) this.actions.busy("");
  }
}
