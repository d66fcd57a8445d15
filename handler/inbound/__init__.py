"""From HTTP to what is asked: who calls, is it an event, which servers."""
