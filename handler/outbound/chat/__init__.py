"""What a result reads like in each chat: pure functions, one file a chat, all alike."""
