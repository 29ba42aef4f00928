//! `roadrunner certify`: certificates for nodes, and the authority that signs them.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use roadrunner_transport::Identity;

use crate::args::Certify;
use crate::exit::{Exit, Failure};
use crate::output;

const DAY: Duration = Duration::from_hours(24);

/// How long an authority is believed.
const AUTHORITY_DAYS: u32 = 3650;

/// How long a node is: what browsers once took at most, so that nobody forgets how to renew.
const NODE_DAYS: u32 = 825;

/// Clocks of nodes may be late.
const BEFORE: Duration = DAY;

/// The authority's certificate and key, beside the nodes' folders.
const CERTIFICATE: &str = "ca.pem";
const KEY: &str = "ca.key";

pub(crate) fn run(options: &Certify) -> Result<Exit, Failure> {
    for name in &options.names {
        let folder = options.dir.join(name);
        if fs::symlink_metadata(&folder).is_ok() {
            let folder = folder.display();
            let what = format!("{folder} is there already; remove it to have a new certificate");
            return Err(Failure::new(Exit::Usage, what));
        }
    }
    let (authority, key) = authority(&options.dir)?;
    let signer = Issuer::from_params(&authority, key);
    for name in &options.names {
        let folder = options.dir.join(name);
        certify(name, &folder, &options.dir.join(CERTIFICATE), &signer)?;
        output::note(&format!("roadrunner: made {}\n", folder.display()));
    }
    Ok(Exit::Success)
}

/// The authority of a folder, which is made where there is none.
fn authority(dir: &Path) -> Result<(CertificateParams, KeyPair), Failure> {
    make_folder(dir).or_else(|error| match error.kind() {
        io::ErrorKind::AlreadyExists if dir.is_dir() => Ok(()),
        _ => Err(unwritable(dir, &error)),
    })?;
    let params = authority_params()?;
    let path = dir.join(KEY);
    match fs::read_to_string(&path) {
        Ok(text) => {
            let key = KeyPair::from_pem(&text).map_err(|error| {
                let what = format!("{} is no private key in PEM: {error}", path.display());
                Failure::new(Exit::Usage, what)
            })?;
            // As it is where the disk was full after the key.
            if !dir.join(CERTIFICATE).exists() {
                let certificate = params.self_signed(&key).map_err(|error| unmade(&error))?;
                write(&dir.join(CERTIFICATE), &certificate.pem())?;
            }
            Ok((params, key))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if dir.join(CERTIFICATE).exists() {
                let what = format!(
                    "{} is missing, and only with it can this authority sign; copy it back, or make another authority in a new folder",
                    path.display()
                );
                return Err(Failure::new(Exit::Input, what));
            }
            let key = KeyPair::generate().map_err(|error| unmade(&error))?;
            let certificate = params.self_signed(&key).map_err(|error| unmade(&error))?;
            write(&path, &key.serialize_pem())?;
            write(&dir.join(CERTIFICATE), &certificate.pem())?;
            Ok((params, key))
        }
        Err(error) => {
            let what = format!("can't read {}: {error}", path.display());
            Err(Failure::new(Exit::Input, what))
        }
    }
}

/// The same each time, so that the key alone is the authority.
fn authority_params() -> Result<CertificateParams, Failure> {
    let mut params = CertificateParams::new(Vec::new()).map_err(|error| unmade(&error))?;
    params.distinguished_name.push(DnType::CommonName, "roadrunner nodes");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid_for(&mut params, AUTHORITY_DAYS);
    Ok(params)
}

fn valid_for(params: &mut CertificateParams, days: u32) {
    let now = SystemTime::now();
    params.not_before = (now - BEFORE).into();
    params.not_after = (now + days * DAY).into();
}

/// Makes a node's folder, as `--tls` takes it, and sees that it is one.
fn certify(
    name: &str,
    folder: &Path,
    authority: &Path,
    signer: &Issuer<'_, KeyPair>,
) -> Result<(), Failure> {
    let mut params =
        CertificateParams::new(vec![name.to_owned()]).map_err(|error| unmade(&error))?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    valid_for(&mut params, NODE_DAYS);
    let key = KeyPair::generate().map_err(|error| unmade(&error))?;
    let certificate = params.signed_by(&key, signer).map_err(|error| unmade(&error))?;
    make_folder(folder).map_err(|error| unwritable(folder, &error))?;
    let written = (|| {
        let authority = fs::read_to_string(authority).map_err(|error| {
            Failure::new(Exit::Input, format!("can't read {}: {error}", authority.display()))
        })?;
        write(&folder.join("ca.pem"), &authority)?;
        write(&folder.join("cert.pem"), &certificate.pem())?;
        write(&folder.join("key.pem"), &key.serialize_pem())?;
        Identity::load(folder).map_err(|error| Failure::new(Exit::Usage, error.to_string()))
    })();
    written.map(drop).inspect_err(|_| {
        // Nobody takes half a folder for a whole one.
        let _ = fs::remove_dir_all(folder);
    })
}

fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Writes a file that only its owner can read.
fn write(path: &PathBuf, text: &str) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.map_err(|error| unwritable(path, &error))?;
    file.write_all(text.as_bytes()).map_err(|error| {
        // Half a file is none.
        let _ = fs::remove_file(path);
        unwritable(path, &error)
    })
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Output, format!("can't write {}: {error}", path.display()))
}

fn unmade(error: &rcgen::Error) -> Failure {
    Failure::new(Exit::Host, format!("can't make a certificate: {error}"))
}
