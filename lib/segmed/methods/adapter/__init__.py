"""SAM-Adapter: bottleneck adapters in a frozen SAM that segments all organs at once."""
