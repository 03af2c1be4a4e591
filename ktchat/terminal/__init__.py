"""What a terminal sends: keys, pastes and reports, checked before the program sees them."""
