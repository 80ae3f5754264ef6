"""Pages: the web page, OHIF with the DICOMweb proxy, the description of the API, and the log."""
