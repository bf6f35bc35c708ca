"""The values of the OCI image specification. No I/O."""
