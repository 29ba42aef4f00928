//! Returns its payload, whose pages go back as they came.

use roadrunner_guest::Buffer;

fn echo(input: Buffer) -> Buffer {
    input
}

roadrunner_guest::handler!(echo);
