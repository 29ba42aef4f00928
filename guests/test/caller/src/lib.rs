//! Calls other functions as its payload says, one instruction a line, and answers with what came
//! of each, one line each. It has one current buffer, empty at first.
//!
//! | instruction | does | answers |
//! |---|---|---|
//! | `fill LEN` | makes a buffer of `pattern` bytes the current one | `fill LEN: LEN bytes, sum SUM` |
//! | `read` | reads the current buffer | `read: LEN bytes, sum SUM` |
//! | `write` | sets every byte of the current buffer to 1 | `write: LEN bytes, sum SUM` |
//! | `call NAME` | moves the current buffer to NAME; the response becomes the current one | `call NAME: LEN bytes, sum SUM` |
//! | `share NAME` | shares it with NAME and keeps it; the response is dropped | `share NAME: LEN bytes, sum SUM` |
//! | `copy NAME` | the same with plain heap memory | `copy NAME: LEN bytes, sum SUM` |
//! | `submit NAME` | shares it with NAME without waiting | `submit NAME` |
//! | `send NAME` | moves it to NAME without waiting; it is empty then | `send NAME` |
//! | `wait` | waits for the oldest submission | `wait: LEN bytes, sum SUM` |
//! | `panic TEXT` | panics | |
//! | `fail TEXT` | fails | |
//! | `log TEXT` | logs | `log TEXT` |
//! | `env NAME` | looks up an environment variable | `env NAME: VALUE` |
//! | `deadline` | | `deadline: yes` or `deadline: none` |
//! | `spin` | loops for ever | |
//!
//! An instruction that fails answers `INSTRUCTION: error: MESSAGE`, and a payload that was not
//! delivered stays the current buffer.

use roadrunner_guest::{Buffer, Error, Level, Ticket, Undelivered};
use std::collections::VecDeque;
use std::fmt::Write;

#[derive(Default)]
struct Caller {
    current: Buffer,
    tickets: VecDeque<Ticket>,
}

impl Caller {
    /// Runs one instruction and says what came of it.
    fn run(&mut self, verb: &str, operand: &str) -> Result<String, Error> {
        match verb {
            "fill" => self.fill(operand),
            "read" => Ok(describe(&self.current)),
            "write" => {
                self.current.fill(1);
                Ok(describe(&self.current))
            }
            "call" => {
                let response = roadrunner_guest::call(operand, std::mem::take(&mut self.current));
                self.current = response.map_err(|undelivered| self.take_back(undelivered))?;
                Ok(describe(&self.current))
            }
            "share" => Ok(describe(&roadrunner_guest::share(operand, &self.current)?)),
            "copy" => {
                let plain = self.current.to_vec();
                Ok(describe(&roadrunner_guest::share(operand, &plain)?))
            }
            "submit" => {
                self.tickets.push_back(roadrunner_guest::submit_shared(operand, &self.current)?);
                Ok(String::new())
            }
            "send" => {
                let ticket = roadrunner_guest::submit(operand, std::mem::take(&mut self.current));
                let ticket = ticket.map_err(|undelivered| self.take_back(undelivered))?;
                self.tickets.push_back(ticket);
                Ok(String::new())
            }
            "wait" => {
                let ticket =
                    self.tickets.pop_front().ok_or_else(|| Error::new("nothing was submitted"))?;
                Ok(describe(&ticket.wait()?))
            }
            _ => meta(verb, operand),
        }
    }

    fn fill(&mut self, len: &str) -> Result<String, Error> {
        let len = len.parse().map_err(|error| Error::new(format_args!("{len:?}: {error}")))?;
        self.current = Buffer::recycled(len)?;
        pattern::fill(&mut self.current);
        Ok(describe(&self.current))
    }

    fn take_back(&mut self, undelivered: Undelivered) -> Error {
        self.current = undelivered.payload.unwrap_or_default();
        undelivered.error
    }
}

/// Instructions that move no payload.
fn meta(verb: &str, operand: &str) -> Result<String, Error> {
    match verb {
        "panic" => panic!("{operand}"),
        "fail" => roadrunner_guest::fail(operand),
        "log" => {
            roadrunner_guest::log(Level::Info, operand);
            Ok(String::new())
        }
        "env" => std::env::var(operand).map_err(Error::new),
        "deadline" => {
            Ok(if roadrunner_guest::time_left().is_some() { "yes" } else { "none" }.into())
        }
        "spin" => loop {
            std::hint::spin_loop();
        },
        _ => Err(Error::new("unknown instruction")),
    }
}

fn describe(bytes: &[u8]) -> String {
    format!("{} bytes, sum {}", bytes.len(), pattern::sum(bytes))
}

fn caller(script: &str) -> Result<String, std::fmt::Error> {
    let mut caller = Caller::default();
    let mut answers = String::new();
    for line in script.lines().filter(|line| !line.is_empty()) {
        let (verb, operand) = line.split_once(' ').unwrap_or((line, ""));
        match caller.run(verb, operand) {
            Ok(answer) if answer.is_empty() => writeln!(answers, "{line}")?,
            Ok(answer) => writeln!(answers, "{line}: {answer}")?,
            Err(error) => writeln!(answers, "{line}: error: {error}")?,
        }
    }
    Ok(answers)
}

roadrunner_guest::handler!(caller);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_answers_line_by_line() {
        let answers = caller("fill 16\ncall nobody\nread\nwait\nhop").unwrap();
        let sum = pattern::expected_sum(16);
        let expected = [
            format!("fill 16: 16 bytes, sum {sum}"),
            "call nobody: error: the called function could not be reached".into(),
            format!("read: 16 bytes, sum {sum}"),
            "wait: error: nothing was submitted".into(),
            "hop: error: unknown instruction".into(),
        ];
        assert_eq!(answers.lines().collect::<Vec<_>>(), expected);
    }
}
