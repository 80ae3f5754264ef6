// Settings of OHIF: everything is asked of the server that this page comes from, whatever its address.
{
  const script = /** @type {HTMLScriptElement} */ (document.currentScript);
  const server = new URL('..', script.src);
  const proxy = `${server.pathname}proxy/dicom`;
  document.cookie = `MONAILABEL_SERVER_URL=${encodeURIComponent(server.href)}; path=${server.pathname}ohif; samesite=strict`;
  // a PACS names its own address, which this browser may not reach
  const throughProxy = uri => `#${uri.replace(/^https?:\/\/.*?\/(?=studies\/)/, `${server.origin}${proxy}/wado/`)}`;

  const LAYOUT = 'segmed'; // the hanging protocol, which is that of volumes or of single images
  const VOLUME_LAYOUT = 'segmed-volume';
  const MODE = '@ohif/mode-monai-label';
  const LABELLED = ['CR', 'CT', 'DX', 'ES', 'MG', 'MR', 'NM', 'OT', 'PT', 'RF', 'US', 'XA', 'XC'];

  /** A large view of the axial slices, and two small ones beside it; the views are those of OHIF's own MPR. */
  const ofVolumes = ({ servicesManager }) => {
    const mpr = servicesManager.services.hangingProtocolService.getProtocolById('mpr');
    const views = [
      { x: 0, y: 0, width: 2 / 3, height: 1 },
      { x: 2 / 3, y: 0, width: 1 / 3, height: 1 / 2 },
      { x: 2 / 3, y: 1 / 2, width: 1 / 3, height: 1 / 2 },
    ];
    const rules = [
      { attribute: 'isReconstructable', weight: 1, constraint: { equals: { value: true } }, required: true },
      { attribute: 'isDisplaySetFromUrl', weight: 10, constraint: { equals: true } },
    ];
    const viewportStructure = { layoutType: 'grid', properties: { rows: 2, columns: 3, layoutOptions: views } };
    const protocol = {
      ...mpr,
      id: VOLUME_LAYOUT,
      name: 'One large, two small',
      isPreset: false,
      displaySetSelectors: { activeDisplaySet: { seriesMatchingRules: rules } },
      stages: [{ ...mpr.stages[0], id: VOLUME_LAYOUT, viewportStructure }],
    };
    return { protocol };
  };

  const ofTheStudy = ({ servicesManager }) => {
    const { displaySetService, hangingProtocolService } = servicesManager.services;
    return displaySetService.getActiveDisplaySets().some(images => images.isReconstructable)
      ? ofVolumes({ servicesManager })
      : { protocol: hangingProtocolService.getDefaultProtocol() };
  };

  /** MONAI Label's mode in this layout, its panel closed until it is wanted, and for all kinds of images. */
  const modeFactory = async ({ loadModules, ...given }) => {
    const [original] = await loadModules([MODE]);
    const mode = await original.modeFactory({ loadModules, ...given });
    const [route] = mode.routes;
    const layoutTemplate = about => {
      const layout = route.layoutTemplate(about);
      return { ...layout, props: { ...layout.props, rightPanelClosed: true } };
    };
    return {
      ...mode,
      hangingProtocol: LAYOUT,
      routes: [{ ...route, layoutTemplate }],
      isValidMode: ({ modalities }) => ({
        valid: modalities.split('\\').some(modality => LABELLED.includes(modality)),
        description: 'There are no images in this study.',
      }),
    };
  };

  window.config = {
    routerBasename: `${server.pathname}ohif/`,
    showStudyList: true,
    extensions: [
      {
        id: 'segmed',
        getHangingProtocolModule: () => [
          { name: LAYOUT, protocol: ofTheStudy },
          { name: VOLUME_LAYOUT, protocol: ofVolumes },
        ],
      },
    ],
    modes: [{ id: MODE, modeFactory }],
    showWarningMessageForCrossOrigin: true,
    showCPUFallbackMessage: true,
    showLoadingIndicator: true,
    strictZSpacingForVolumeViewport: true,
    useSharedArrayBuffer: 'FALSE',
    activateViewportBeforeInteraction: false,
    investigationalUseDialog: { option: 'never' },
    defaultDataSourceName: 'dicomweb',
    dataSources: [
      {
        namespace: '@ohif/extension-default.dataSourcesModule.dicomweb',
        sourceName: 'dicomweb',
        configuration: {
          friendlyName: 'PACS',
          name: 'PACS',
          qidoRoot: `${proxy}/qido`,
          wadoRoot: `${proxy}/wado`,
          wadoUriRoot: `${proxy}/wado`,
          qidoSupportsIncludeField: true,
          supportsReject: false,
          supportsFuzzyMatching: false,
          supportsWildcard: true,
          imageRendering: 'wadors',
          thumbnailRendering: 'wadors',
          enableStudyLazyLoad: true,
          dicomUploadEnabled: false,
          bulkDataURI: { enabled: true, transform: throughProxy, startsWith: '#', prefixWith: '' },
        },
      },
    ],
  };
}
