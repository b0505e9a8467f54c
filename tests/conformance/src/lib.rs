//! One suite of scenarios for everything that speaks Consul's API.
//!
//! A scenario is a function of a [`Subject`]: the embedded agent in this process, or a real Consul
//! 1.8.7 (the program that `MESHX_TEST_CONSUL` names) in a process of its own. What the embedded
//! agent does otherwise is a [capability](Subject::is_consul) and written down where it is asked.
//! Answers are compared with recordings of the real program (`data/`).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]
#![allow(clippy::missing_panics_doc, clippy::panic_in_result_fn, reason = "a test may fail")]

mod answer;
mod recording;
pub mod scenarios;
mod subject;

pub use answer::{Answer, ask, ask_with, eventually};
pub use recording::{Recording, like};
pub use subject::{Subject, consul_binary, skip};
