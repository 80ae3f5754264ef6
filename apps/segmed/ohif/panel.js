// MONAI Label's panel, which the user opens for its own tools: it works on the label map that is there. Its Connect
// button is pressed for the user.

import * as labelmap from './labelmap.js';
import * as server from './server.js';

const ADDRESS = 'monailabelServerURL'; // the id of the panel's field

export class PanelConnection {
  #pressed = new WeakSet(); // fields of panels

  /** Press the button of a panel, once, when there is a label map: without one it would make its own. */
  connect() {
    const address = /** @type {HTMLInputElement | null} */ (document.getElementById(ADDRESS));
    if (!address || this.#pressed.has(address) || !labelmap.volume()) {
      return;
    }
    this.#pressed.add(address);
    address.value = server.root.href;
    address.closest('table').querySelector('button').click();
  }
}
