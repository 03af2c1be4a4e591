"""Files and long pastes that go with a message: found, read in a bounded process, kept as the text that was sent."""
