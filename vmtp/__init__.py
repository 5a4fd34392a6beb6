"""VMTP and SMTP without I/O: addresses, replies, commands, framing, and both engines of a session."""
