"""What every room of the engine needs: threads, folders, small files, units."""
