"""Stream multiplexers: their names and options, and how a session starts. The framing is in `_fast/mux`."""
