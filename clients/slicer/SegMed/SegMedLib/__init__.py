"""The parts of the module SegMed that are no widgets."""
