"""`segmed batch`: runs over an archive, and what should be looked at afterwards."""
