"""What producer and consumer share: cluster view, connections, retry policy, the I/O thread."""
