"""Bodies of requests, which are checked with these, and of responses, which are described by them."""
