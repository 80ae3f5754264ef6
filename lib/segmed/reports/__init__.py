"""The report on active learning: numbers, curves and cases as one HTML page."""
