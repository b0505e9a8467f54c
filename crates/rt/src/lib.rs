//! The one seam to the operating system: listeners, dialers, time, randomness, drain, backoff, byte copying.
