"""One study on several machines: the study in a shared storage, files through an exchange, a leader and its workers."""
