"""The message of a result for each chat: pure functions, one file a chat."""
