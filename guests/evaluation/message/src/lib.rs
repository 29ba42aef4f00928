//! What functions say to each other that speak JSON: compiled into native functions and into WebAssembly, so that only
//! where it runs makes a difference.

use serde::{Deserialize, Serialize};

/// One payload, with what a function is usually told besides.
#[derive(Deserialize)]
pub struct Message {
    /// Which function it is for.
    pub function: String,
    /// The payload.
    pub payload: String,
}

#[derive(Serialize)]
struct Borrowed<'a> {
    function: &'a str,
    payload: &'a str,
}

/// A message with this payload as JSON.
///
/// # Errors
/// None that are known: strings have no trouble becoming JSON.
pub fn encode(payload: &str) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Borrowed { function: "consume", payload })
}

/// The message again, with strings of its own.
///
/// # Errors
/// When the bytes are not JSON or no message.
pub fn decode(bytes: &[u8]) -> Result<Message, serde_json::Error> {
    serde_json::from_slice(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back() {
        let json = encode("abc").unwrap();
        assert_eq!(json, br#"{"function":"consume","payload":"abc"}"#);
        let message = decode(&json).unwrap();
        assert_eq!((&*message.function, &*message.payload), ("consume", "abc"));
        assert!(decode(&json[1..]).is_err());
    }
}
