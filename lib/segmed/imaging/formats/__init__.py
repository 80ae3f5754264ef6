"""File formats: NIfTI, NRRD, MetaImage, pictures and DICOM series, with checks of what their headers say."""
