"""Hardware: profiles and how they are loaded, the probe of this machine, and the latency model over an exported graph."""
