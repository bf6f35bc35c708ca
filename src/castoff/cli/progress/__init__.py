"""Shows how a build goes: plain, tty, rawjson and quiet, from one state machine."""
