// What OHIF puts into the window of its page.
interface Window {
  services: Record<string, any>;
  cornerstone: any;
  cornerstoneTools: any;
  commandsManager: any;
  config: object;
}
