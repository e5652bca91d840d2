"""Stream multiplexers: names, options and the async face; framing is in _fast."""
