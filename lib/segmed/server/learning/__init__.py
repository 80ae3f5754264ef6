"""Active learning on the server: scoring and retraining in the background, and their endpoints."""
