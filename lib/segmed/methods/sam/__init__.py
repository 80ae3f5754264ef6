"""SAM, MedSAM and SAM2, the tuning of their decoders, and SAM as a classifier of pixels."""
