// MONAI Label's panel, whose Connect button makes the label map. It is pressed for the user.

import * as labelmap from './labelmap.js';
import * as server from './server.js';
import { seriesShown } from './viewports.js';

const ADDRESS = 'monailabelServerURL'; // the id of the panel's field

export class PanelConnection {
  #pressed = new WeakMap(); // times, by the field of a panel

  /** @param {number} retryAfter ms without a label map after which the button is pressed again */
  constructor(retryAfter) {
    this.retryAfter = retryAfter;
  }

  /** Press the button where a panel and a series are shown, once, and again if no label map has come of it. */
  connect() {
    const address = /** @type {HTMLInputElement | null} */ (document.getElementById(ADDRESS));
    if (!address || !seriesShown()) {
      return;
    }
    const failed = Date.now() - this.#pressed.get(address) > this.retryAfter && !labelmap.volume();
    if (this.#pressed.has(address) && !failed) {
      return;
    }
    this.#pressed.set(address, Date.now());
    if (failed) {
      labelmap.discard();
    }
    address.value = server.root.href;
    address.closest('table').querySelector('button').click();
  }
}
