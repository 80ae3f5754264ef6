"""Where studies and labels lie: folders of files, folders of DICOM, and a PACS."""
