"""Two results of one experiment: compared cell by cell, or one made anew and certified. Reads records; never torch."""
