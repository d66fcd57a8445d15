"""From a CloudEvent to a stop request: `dispatch` chooses the extractor, and no extractor imports it."""
