"""One conversation with a model, without a screen: messages, replies, the open session."""
