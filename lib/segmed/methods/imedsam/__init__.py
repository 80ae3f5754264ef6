"""I-MedSAM: frequency adapters in SAM's encoder, and masks as a continuous function of position."""
