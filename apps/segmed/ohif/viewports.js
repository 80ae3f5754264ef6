// OHIF's views: the series that is shown, and how views of it are turned.

const services = () => window.services;
const cornerstoneViewport = id => services().cornerstoneViewportService.getCornerstoneViewport(id);

/**
 * The series of the view that was used last.
 * @returns {string | undefined} its UID; nothing before it is drawn, or if it is no volume
 */
export function seriesShown() {
  try {
    const { viewports, activeViewportId } = services().viewportGridService.getState();
    const drawn = cornerstoneViewport(activeViewportId)?.getImageData();
    const [shown] = viewports.get(activeViewportId).displaySetInstanceUIDs;
    const displaySet = drawn && services().displaySetService.getDisplaySetByUID(shown);
    return displaySet?.isReconstructable ? displaySet.SeriesInstanceUID : undefined;
  } catch {
    return undefined; // OHIF is still making its views
  }
}

/** Whether the view that was used last shows images that are no volume, such as radiographs or a film of ultrasound. */
export function showsSingleImages() {
  try {
    const { viewports, activeViewportId } = services().viewportGridService.getState();
    const [shown] = viewports.get(activeViewportId).displaySetInstanceUIDs;
    const displaySet = services().displaySetService.getDisplaySetByUID(shown);
    return displaySet.numImageFrames > 0 && !displaySet.isReconstructable;
  } catch {
    return false; // OHIF is still making its views
  }
}

/**
 * Have the views show a range of grey values, where the files of the series name no window of their own: OHIF would
 * take the whole range, in which MR is dark.
 * @param {number[]} range the lowest and the highest value
 */
export function showRange([lower, upper]) {
  for (const viewport of volumeViewports().map(cornerstoneViewport)) {
    const images = viewport.getImageIds();
    const told = window.cornerstone.metaData.get('voiLutModule', images[Math.floor(images.length / 2)]);
    if (![told?.windowWidth ?? []].flat().length && lower < upper) {
      viewport.setProperties({ voiRange: { lower, upper } });
      viewport.render();
    }
  }
}

/** Ids of the views that show a volume in slices. */
export function volumeViewports() {
  const shown = [...services().viewportGridService.getState().viewports.values()];
  return shown.map(viewport => viewport.viewportId).filter(id => cornerstoneViewport(id)?.type === 'orthographic');
}

/**
 * Turn a view to the nearest axes of the series.
 * @param {string} id of the view
 * @param {number[][]} directions of the axes, unit vectors
 */
export function turnAlong(id, directions) {
  const viewport = cornerstoneViewport(id);
  const { viewPlaneNormal, viewUp } = viewport.getCamera();
  const axes = directions.flatMap(d => [d, d.map(v => -v)]);
  const nearest = to => axes.reduce((a, b) => (dot(b, to) > dot(a, to) ? b : a));
  const normal = nearest(viewPlaneNormal);
  if (dot(normal, viewPlaneNormal) < 0.9999) {
    // where OHIF looks when it draws the view again, after the window got another size for instance
    viewport.viewportProperties.orientation = { viewPlaneNormal: normal, viewUp: nearest(viewUp) };
    viewport.resetCamera();
    viewport.render();
  }
}

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
