"""Generated protobuf modules; regenerate with `make protobuf`."""
