//! OCI images, made without any other program: an archive as `ctr image import` takes it.

use sha2::{Digest, Sha256};

/// Bytes of a block of a tar archive.
const BLOCK: usize = 512;

/// What an image holds.
pub(super) struct Image<'a> {
    /// Its name with a tag.
    pub(super) name: &'a str,
    /// What runs, with its first arguments.
    pub(super) entry: &'a [&'a str],
    /// Its files by their paths.
    pub(super) files: &'a [(&'a str, &'a [u8])],
}

impl Image<'_> {
    /// The archive.
    pub(super) fn archive(&self) -> Vec<u8> {
        let mut layer = Tar::default();
        for (path, bytes) in self.files {
            layer.add(path, bytes);
        }
        let layer = layer.end();
        let mut blobs = Tar::default();
        let (layer_digest, layer_len) = blobs.add_blob(&layer);
        let entry: Vec<String> = self.entry.iter().map(|word| format!("{word:?}")).collect();
        let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let config = format!(
            r#"{{"architecture":"{machine}","os":"linux","config":{{"Entrypoint":[{}]}},"rootfs":{{"type":"layers","diff_ids":["{layer_digest}"]}}}}"#,
            entry.join(",")
        );
        let (config_digest, config_len) = blobs.add_blob(config.as_bytes());
        let media = "application/vnd.oci.image";
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{media}.manifest.v1+json","config":{{"mediaType":"{media}.config.v1+json","digest":"{config_digest}","size":{config_len}}},"layers":[{{"mediaType":"{media}.layer.v1.tar","digest":"{layer_digest}","size":{layer_len}}}]}}"#
        );
        let (digest, len) = blobs.add_blob(manifest.as_bytes());
        let name = self.name;
        let index = format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{media}.manifest.v1+json","digest":"{digest}","size":{len},"platform":{{"os":"linux","architecture":"{machine}"}},"annotations":{{"io.containerd.image.name":"{name}"}}}}]}}"#
        );
        blobs.add("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        blobs.add("index.json", index.as_bytes());
        blobs.end()
    }
}

/// A tar archive in the making.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    /// Adds a file that everybody may read and run.
    fn add(&mut self, path: &str, bytes: &[u8]) {
        let mut header = [0; BLOCK];
        let mut put =
            |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, path);
        put(100, "0000755\0");
        put(108, "0000000\0");
        put(116, "0000000\0");
        put(124, &format!("{:011o}\0", bytes.len()));
        put(136, "00000000000\0");
        put(148, "        ");
        put(156, "0");
        put(257, "ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(header);
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
    }

    /// Adds bytes under their digest, which it gives with their number.
    fn add_blob(&mut self, bytes: &[u8]) -> (String, usize) {
        let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        self.add(&format!("blobs/sha256/{hex}"), bytes);
        (format!("sha256:{hex}"), bytes.len())
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 2 * BLOCK]);
        self.0
    }
}
