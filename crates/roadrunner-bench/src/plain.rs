//! The plain HTTP server that the gateway is compared with: axum, as its documentation sets it up, and a handler from
//! bytes to the same bytes.

use std::io;
use std::net::TcpListener;

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::routing::post;
use axum::serve::ListenerExt as _;

/// Answers every request with its own body, until the process ends.
///
/// # Errors
/// When the kernel refuses threads, or the socket is none that listens.
pub fn serve_plain(
    listener: TcpListener,
    ready: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    listener.set_nonblocking(true)?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?.tap_io(|stream| {
            // As the gateway's; a connection that refuses it is only slower.
            let _ = stream.set_nodelay(true);
        });
        ready()?;
        let echo = post(|body: Bytes| async { body });
        axum::serve(listener, Router::new().route("/", echo).layer(DefaultBodyLimit::disable()))
            .await
    })
}
