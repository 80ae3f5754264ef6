// Tells when something has changed in OHIF that the tool bar depends on: which series is shown, whether there is a label
// map, which tool is used, which page of OHIF this is.

const SOON = 50; // ms in which several changes count as one

/** Events of OHIF's services, by service. */
const EVENTS = {
  viewportGridService: ['ACTIVE_VIEWPORT_ID_CHANGED', 'GRID_STATE_CHANGED', 'VIEWPORTS_READY'],
  cornerstoneViewportService: ['VIEWPORT_DATA_CHANGED'],
  segmentationService: ['SEGMENTATION_ADDED', 'SEGMENTATION_MODIFIED', 'SEGMENTATION_REMOVED'],
  toolGroupService: ['PRIMARY_TOOL_ACTIVATED'],
};

export class Watch {
  #awaited = false; // a look
  #subscribed = false;

  /**
   * @param {() => void} look at what has changed
   * @param {() => void} begin called once, when OHIF's services are there
   */
  constructor(look, begin) {
    this.look = look;
    this.begin = begin;
  }

  start() {
    // No service tells of OHIF's way from the study list to the viewer and back, nor of the coming of MONAI Label's
    // panel, and the services themselves come late; all of that puts elements into the page.
    const observer = new MutationObserver(() => this.soon());
    observer.observe(document.getElementById('root'), { childList: true, subtree: true });
    this.soon();
  }

  /** Look in a moment, once for all changes until then. */
  soon() {
    if (this.#awaited) {
      return;
    }
    this.#awaited = true;
    setTimeout(() => {
      this.#awaited = false;
      this.#subscribe();
      this.look();
    }, SOON);
  }

  /** Services outlive the pages of OHIF, and so do subscriptions to them. */
  #subscribe() {
    if (this.#subscribed || !Object.keys(EVENTS).every(name => window.services?.[name])) {
      return;
    }
    this.#subscribed = true;
    this.begin();
    for (const [name, events] of Object.entries(EVENTS)) {
      const service = window.services[name];
      for (const event of events) {
        service.subscribe(service.EVENTS[event], () => this.soon());
      }
    }
  }
}
