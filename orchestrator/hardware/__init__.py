"""Hardware: profiles and their files, the probe of this machine, counting of ONNX graphs, and the latency model."""
