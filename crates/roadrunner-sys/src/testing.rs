//! What tests of several modules send over, and what.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

/// Both ends of a TCP connection, of which the first never waits.
pub(crate) fn loopback() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (there, _) = listener.accept().unwrap();
    here.set_nodelay(true).unwrap();
    here.set_nonblocking(true).unwrap();
    there.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (here, there)
}

/// Bytes of which none of the next 250 is the same.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..251).cycle().take(len).collect()
}

pub(crate) fn read_exactly(mut stream: &TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}
