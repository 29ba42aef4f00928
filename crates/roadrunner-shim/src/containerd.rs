//! Asks containerd for images: gRPC over HTTP/2, at the socket that it names to its shims. Its ttrpc socket takes events alone.
//!
//! A call is a message that is sent and messages that come back, each behind five bytes: whether it is compressed, and its
//! length. The messages here are of a few texts, so they are read by the numbers of their fields (`api/services` in
//! containerd's sources).

use std::time::Duration;

use containerd_shim_protos::api::Empty;
use containerd_shim_protos::protobuf::{CodedOutputStream, Message, UnknownValueRef};
use h2::client::SendRequest;
use http::Request;
use roadrunner_image::{Digest, limit};
use tokio::net::UnixStream;
use tokio::runtime::Builder;

use crate::error::Refusal;

/// How long containerd has for all that is asked for one container.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes before each message.
const PREFIX: usize = 5;

/// Bytes that may be on their way before they are read: a module comes in one stream.
const WINDOW: u32 = 1 << 20;

/// Bytes that an answer may have beside what is asked for, and a quarter of that: each message of it says its length and
/// its place.
const OVERHEAD: u64 = 64 << 10;

const GET_CONTAINER: &str = "/containerd.services.containers.v1.Containers/Get";
const GET_IMAGE: &str = "/containerd.services.images.v1.Images/Get";
const READ_CONTENT: &str = "/containerd.services.content.v1.Content/Read";

/// Where images are, in one of containerd's namespaces.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    address: String,
    namespace: String,
}

/// A connection, for the few questions about one container.
pub(crate) struct Asking<'s> {
    store: &'s Store,
    sender: SendRequest<bytes::Bytes>,
}

impl Store {
    /// At containerd's own socket.
    pub(crate) fn new(address: String, namespace: String) -> Self {
        Self { address, namespace }
    }

    /// Connects, and has the questions asked of it answered in time.
    pub(crate) fn ask<T>(
        &self,
        questions: impl AsyncFnOnce(&mut Asking<'_>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime.map_err(Refusal::failed("wait for containerd"))?.block_on(async {
            let answered = tokio::time::timeout(PATIENCE, async {
                let socket = UnixStream::connect(&self.address).await;
                let socket = socket.map_err(Refusal::failed("connect to containerd"))?;
                let mut http = h2::client::Builder::new();
                http.initial_window_size(WINDOW).initial_connection_window_size(WINDOW);
                let (sender, link) = http.handshake(socket).await.map_err(no_answer)?;
                // It ends with the reactor.
                tokio::spawn(link);
                questions(&mut Asking { store: self, sender }).await
            });
            let late =
                |_| Refusal::Failed("containerd did not say in time which image it is".into());
            answered.await.map_err(late)?
        })
    }
}

impl Asking<'_> {
    /// The name of a container's image; empty where it has none.
    pub(crate) async fn image_of(&mut self, container: &str) -> Result<String, Refusal> {
        let answer = self.call(GET_CONTAINER, container, limit::MANIFEST_BYTES).await?;
        // GetContainerResponse.container, Container.image
        text(field(&field(&answer.concat(), 1)?, 3)?)
    }

    /// The digest that an image has now.
    pub(crate) async fn digest_of(&mut self, image: &str) -> Result<Digest, Refusal> {
        let answer = self.call(GET_IMAGE, image, limit::MANIFEST_BYTES).await?;
        // GetImageResponse.image, Image.target, Descriptor.digest
        let digest = text(field(&field(&field(&answer.concat(), 1)?, 3)?, 2)?)?;
        digest.parse().map_err(|error| Refusal::Failed(format!("the image {image}: {error}")))
    }

    /// A blob of at most so many bytes, which has its digest.
    pub(crate) async fn blob(&mut self, digest: &Digest, most: u64) -> Result<Vec<u8>, Refusal> {
        let parts = self.call(READ_CONTENT, &digest.to_string(), most).await?;
        let mut bytes = Vec::new();
        for part in parts {
            // ReadContentResponse.data
            bytes.extend(field(&part, 2)?);
        }
        if Digest::of(&bytes) != *digest {
            return Err(Refusal::Failed(format!(
                "containerd gave other bytes than those of {digest}"
            )));
        }
        Ok(bytes)
    }

    /// Calls a method whose request has one field, the first, which is a text. The answer has `most` bytes at most, and those of its
    /// messages.
    async fn call(&mut self, path: &str, text: &str, most: u64) -> Result<Vec<Vec<u8>>, Refusal> {
        let mut message = Vec::new();
        let mut out = CodedOutputStream::vec(&mut message);
        out.write_string(1, text).and_then(|()| out.flush()).map_err(no_answer)?;
        drop(out);
        let mut framed = vec![0];
        framed.extend(u32::try_from(message.len()).unwrap_or_default().to_be_bytes());
        framed.extend(message);

        let request = Request::post(format!("http://containerd{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("containerd-namespace", &self.store.namespace)
            .body(())
            .map_err(no_answer)?;
        let mut sender = self.sender.clone().ready().await.map_err(no_answer)?;
        let (answer, mut stream) = sender.send_request(request, false).map_err(no_answer)?;
        stream.send_data(framed.into(), true).map_err(no_answer)?;
        let (head, mut body) = answer.await.map_err(no_answer)?.into_parts();
        let most = usize::try_from(most + most / 4 + OVERHEAD).unwrap_or(usize::MAX);
        let mut bytes = Vec::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk.map_err(no_answer)?;
            if bytes.len() + chunk.len() > most {
                return Err(Refusal::Invalid(format!(
                    "what containerd has for {text} is too large"
                )));
            }
            body.flow_control().release_capacity(chunk.len()).map_err(no_answer)?;
            bytes.extend_from_slice(&chunk);
        }
        // What ends at once has its status where the head is.
        let trailers = body.trailers().await.map_err(no_answer)?.unwrap_or(head.headers);
        let said = |name| trailers.get(name).and_then(|value| value.to_str().ok());
        match said("grpc-status") {
            Some("0") => split(&bytes),
            code => {
                let why = said("grpc-message").or(code).unwrap_or("no status");
                Err(Refusal::Failed(format!("containerd does not say what {text} is: {why}")))
            }
        }
    }
}

fn no_answer(error: impl std::error::Error) -> Refusal {
    Refusal::Failed(format!("can't ask containerd for the image: {error}"))
}

/// The messages of an answer.
fn split(mut bytes: &[u8]) -> Result<Vec<Vec<u8>>, Refusal> {
    let cut = || Refusal::Failed("containerd's answer is cut or compressed".into());
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let (prefix, rest) = bytes.split_first_chunk::<PREFIX>().ok_or_else(cut)?;
        let [compressed, len @ ..] = *prefix;
        let len = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
        let message = rest.get(..len).filter(|_| compressed == 0).ok_or_else(cut)?;
        all.push(message.to_vec());
        bytes = &rest[len..];
    }
    Ok(all)
}

/// A field of a message that is a text, bytes or another message; empty where it is not there, which means the same.
fn field(message: &[u8], number: u32) -> Result<Vec<u8>, Refusal> {
    // To an empty message every field is unknown, and kept.
    let parsed = Empty::parse_from_bytes(message).map_err(no_answer)?;
    match parsed.special_fields.unknown_fields().get(number) {
        Some(UnknownValueRef::LengthDelimited(bytes)) => Ok(bytes.to_vec()),
        _ => Ok(Vec::new()),
    }
}

fn text(bytes: Vec<u8>) -> Result<String, Refusal> {
    String::from_utf8(bytes).map_err(no_answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_split_at_their_lengths() {
        let two = [b"\0\0\0\0\x02ab".as_slice(), b"\0\0\0\0\0", b"\0\0\0\0\x01c"].concat();
        assert_eq!(split(&two).unwrap(), [b"ab".to_vec(), Vec::new(), b"c".to_vec()]);
        assert_eq!(split(b"").unwrap(), Vec::<Vec<u8>>::new());
        for bad in [&two[..two.len() - 1], &two[..3], b"\x01\0\0\0\x01c", b"\0\xff\xff\xff\xffc"] {
            assert!(split(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn fields_are_found_by_their_numbers() {
        // Image { name: "n", target: Descriptor { media_type: "m", digest: "d", size: 3 } }
        let image = b"\x0a\x01n\x1a\x08\x0a\x01m\x12\x01d\x18\x03";
        assert_eq!(field(image, 1).unwrap(), b"n");
        assert_eq!(field(&field(image, 3).unwrap(), 2).unwrap(), b"d");
        assert_eq!(field(image, 7).unwrap(), b"");
        assert!(field(&image[..5], 3).is_err(), "it is cut");
    }
}
