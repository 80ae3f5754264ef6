"""Published weights: the list, where they are stored, and how they are downloaded."""
