"""The SAM image encoder on CPUs: number formats, and attention without the full position bias."""
