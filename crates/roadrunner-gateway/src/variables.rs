//! The headers of a request that a function asks for, as its environment variables.

use hyper::{HeaderMap, StatusCode};
use roadrunner_runtime::Variables;
use roadrunner_workflow::Function;

use crate::refusal::Refusal;

/// Bytes that the headers for one function may have together: what a server's whole head commonly has at most.
/// They are copied into the sandbox.
const BYTES: usize = 8 << 10;

/// Those that are there. One that comes several times is one list.
pub(crate) fn of(headers: &HeaderMap, function: &Function) -> Result<Variables, Refusal> {
    let mut left = BYTES;
    let mut variables = Variables::new();
    for header in &function.headers {
        let values: Vec<_> = headers.get_all(&header.name).iter().map(|it| it.as_bytes()).collect();
        if values.is_empty() {
            continue;
        }
        // HTTP/2 splits cookies, which are no list for it.
        let between: &[u8] = if header.name == "cookie" { b"; " } else { b", " };
        let value = values.join(between);
        let taken = header.variable.len() + value.len();
        left = left.checked_sub(taken).ok_or_else(|| {
            let message = format!("the headers for the function have more than {BYTES} bytes");
            Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, message)
        })?;
        variables.push((header.variable.clone(), value));
    }
    Ok(variables)
}
