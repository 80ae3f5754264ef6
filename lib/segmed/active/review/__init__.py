"""Labels under review: what a submission holds, how far models agree with it, and which labels are held
back."""
