"""Who may use the server: users with passwords and tokens, their sessions, and the gate in front of every
endpoint."""
