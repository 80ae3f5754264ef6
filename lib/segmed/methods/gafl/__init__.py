"""SAM+GAFL: a learned filter of the image's spectrum before a frozen SAM."""
