// Settings of OHIF: everything is asked of the server that this page comes from, whatever its address.
{
  const script = /** @type {HTMLScriptElement} */ (document.currentScript);
  const server = new URL('..', script.src);
  const proxy = `${server.pathname}proxy/dicom`;
  document.cookie = `MONAILABEL_SERVER_URL=${encodeURIComponent(server.href)}; path=${server.pathname}ohif; samesite=strict`;
  // a PACS names its own address, which this browser may not reach
  const throughProxy = uri => `#${uri.replace(/^https?:\/\/.*?\/(?=studies\/)/, `${server.origin}${proxy}/wado/`)}`;
  window.config = {
    routerBasename: `${server.pathname}ohif/`,
    showStudyList: true,
    extensions: [],
    modes: [],
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
