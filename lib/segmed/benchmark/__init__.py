"""Published tables beside numbers of one's own: what they hold, the jobs behind them, and the reports."""
