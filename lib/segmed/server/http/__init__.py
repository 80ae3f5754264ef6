"""Requests and answers: checks, limits, the endpoints of MONAI Label's clients, the page, OHIF, and the
DICOMweb proxy."""
