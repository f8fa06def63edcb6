"""One search on several machines: the study in a shared storage, files through an exchange, workers that come and go."""
