//! Does nothing: what remains is the price of a call.

fn noop(_: roadrunner_guest::Buffer) {}

roadrunner_guest::handler!(noop);
