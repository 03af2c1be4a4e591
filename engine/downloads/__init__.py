"""Downloads that are never lost: queue, transfer, journal, checksums, what is on the disk."""
