//! What is looked at, from the kernel up.

use std::path::Path;
use std::{fs, io};

use roadrunner_runtime::{BreakEven, Cache, Config, Runtime};
use roadrunner_sys::{Memfd, Seals};
use roadrunner_transport::{Figure, Speed};

use super::{Check, Status};
use crate::{output, report};

/// First kernel with `MREMAP_DONTUNMAP`, which page moves need.
const KERNEL_NEEDED: (u32, u32) = (5, 7);
/// Mappings that a busy process needs: two for each window and sandbox, and as many again.
const MAPPINGS_WANTED: usize = 65_530;
/// Address space in bytes that the default runtime reserves: 4 GiB for each of 1000 sandboxes, and guard pages.
const ADDRESS_SPACE_WANTED: u64 = 5 << 40;
/// Descriptors wanted: one for each payload that several functions share.
const FILES_WANTED: u64 = 1024;
/// Memory in bytes below which large payloads have no room.
const MEMORY_WANTED: u64 = 1 << 30;

const THP: &str = "/sys/kernel/mm/transparent_hugepage";

/// Looks at everything.
pub(super) fn all() -> Vec<Check> {
    let mut checks = vec![
        kernel(),
        page_moves(),
        sealed_files(),
        huge_pages("enabled", "huge pages", &["always", "madvise"], "madvise"),
        huge_pages(
            "shmem_enabled",
            "huge pages, shared",
            &["always", "advise", "within_size", "force"],
            "advise",
        ),
        mappings(),
        overcommit(),
        address_space(),
        files(),
        engine(),
        cache(),
        cores(),
        memory(),
    ];
    checks.extend(roadrunner_transport::measure().iter().map(network));
    checks
}

fn kernel() -> Check {
    let release = read("/proc/sys/kernel/osrelease").unwrap_or_else(|error| error.to_string());
    let old = version(&release).is_some_and(|version| version < KERNEL_NEEDED);
    let (major, minor) = KERNEL_NEEDED;
    let advice = format!("pages can't be moved; use Linux {major}.{minor} or newer");
    Check::new("kernel", format!("Linux {release}")).unless(old, Status::Fail, advice)
}

/// Major and minor number of a release such as `6.18.44-generic`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn page_moves() -> Check {
    const NAME: &str = "page moves";
    match BreakEven::measure() {
        Ok(even) => {
            let from = report::bytes(even.bytes() as u64);
            Check::new(NAME, format!("mremap works; moving beats copying from {from} on"))
        }
        Err(error) => Check::new(NAME, format!("mremap with MREMAP_DONTUNMAP: {error}")).unless(
            true,
            Status::Fail,
            "allow the system calls mmap, mremap and madvise in the sandbox that this process runs in",
        ),
    }
}

fn sealed_files() -> Check {
    const NAME: &str = "sealed memory files";
    let sealed = Memfd::new(1).and_then(|memfd| {
        memfd.seal()?;
        memfd.seals()
    });
    let (found, wrong) = match sealed {
        Ok(seals) if seals.contains(Seals::ALL) => ("memfd with all seals".to_owned(), false),
        Ok(_) => ("memfd without its seals".into(), true),
        Err(error) => (format!("memfd_create: {error}"), true),
    };
    let advice = "fan-out and other processes need them; allow memfd_create and fcntl";
    Check::new(NAME, found).unless(wrong, Status::Fail, advice)
}

fn huge_pages(file: &str, name: &'static str, good: &[&str], better: &str) -> Check {
    let path = format!("{THP}/{file}");
    let Ok(text) = read(&path) else {
        let advice =
            "payloads work in pages of 4 KiB; use a kernel with CONFIG_TRANSPARENT_HUGEPAGE";
        return Check::new(name, "this kernel has none").unless(true, Status::Warn, advice);
    };
    let chosen = chosen(&text).unwrap_or(&text);
    let advice = format!(
        "payloads of 2 MiB and more are handed over and filled faster with: echo {better} | sudo tee {path}"
    );
    Check::new(name, chosen).unless(!good.contains(&chosen), Status::Warn, advice)
}

/// The setting in brackets of `always [madvise] never`.
fn chosen(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0)
}

fn mappings() -> Check {
    const NAME: &str = "vm.max_map_count";
    match roadrunner_sys::max_map_count() {
        Ok(most) => {
            let advice =
                format!("fewer payloads can be in flight; sudo sysctl {NAME}={MAPPINGS_WANTED}");
            Check::new(NAME, most.to_string()).unless(most < MAPPINGS_WANTED, Status::Warn, advice)
        }
        Err(error) => unknown(NAME, &error),
    }
}

fn overcommit() -> Check {
    const NAME: &str = "vm.overcommit_memory";
    match read("/proc/sys/vm/overcommit_memory") {
        Ok(mode) => {
            let advice = format!(
                "the kernel refuses memory that is reserved and not used yet; sudo sysctl {NAME}=0"
            );
            let strict = mode == "2";
            Check::new(NAME, mode).unless(strict, Status::Warn, advice)
        }
        Err(error) => unknown(NAME, &error),
    }
}

fn address_space() -> Check {
    const NAME: &str = "address space";
    match limit("Max address space") {
        Ok(None) => Check::new(NAME, "unlimited"),
        Ok(Some(bytes)) => Check::new(NAME, report::bytes(bytes)).unless(
            bytes < ADDRESS_SPACE_WANTED,
            Status::Warn,
            "sandboxes reserve address space, which costs no memory; ulimit -v unlimited",
        ),
        Err(error) => unknown(NAME, &error),
    }
}

fn files() -> Check {
    const NAME: &str = "open files";
    match limit("Max open files") {
        Ok(None) => Check::new(NAME, "unlimited"),
        Ok(Some(most)) => Check::new(NAME, most.to_string()).unless(
            most < FILES_WANTED,
            Status::Warn,
            format!("each shared payload in flight needs one; ulimit -n {FILES_WANTED}"),
        ),
        Err(error) => unknown(NAME, &error),
    }
}

/// The soft limit of this name, `None` if it is unlimited.
fn limit(name: &str) -> io::Result<Option<u64>> {
    let limits = fs::read_to_string("/proc/self/limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix(name));
    match line.and_then(|line| line.split_whitespace().next()) {
        Some("unlimited") => Ok(None),
        Some(number) => number.parse().map(Some).map_err(io::Error::other),
        None => Err(io::Error::other(format!("/proc/self/limits has no line {name}"))),
    }
}

fn engine() -> Check {
    const NAME: &str = "sandboxes";
    let config = Config { cache: Cache::Off, ..Config::default() };
    let wanted = config.sandboxes;
    match Runtime::new(config) {
        Ok(runtime) => {
            let sandboxes = runtime.sandboxes();
            let advice = format!("{wanted} fit where address space is unlimited");
            let fewer = sandboxes < wanted;
            Check::new(NAME, format!("{sandboxes} at once")).unless(fewer, Status::Warn, advice)
        }
        Err(error) => Check::new(NAME, error.to_string()).unless(
            true,
            Status::Fail,
            "see the lines above: address space, vm.max_map_count and vm.overcommit_memory",
        ),
    }
}

fn cache() -> Check {
    const NAME: &str = "cache of compiled code";
    let Cache::Directory(folder) = Cache::user() else {
        let advice = "functions are compiled again in every run; set HOME or XDG_CACHE_HOME";
        return Check::new(NAME, "none").unless(true, Status::Warn, advice);
    };
    let shown = folder.display().to_string();
    match usable(&folder) {
        Ok(()) => Check::new(NAME, shown),
        Err(error) => {
            let advice = "functions are compiled again in every run; make it writable, or set XDG_CACHE_HOME";
            Check::new(NAME, format!("{shown}: {error}")).unless(true, Status::Warn, advice)
        }
    }
}

/// Whether files can be made in a folder, which is made where it is missing.
fn usable(folder: &Path) -> io::Result<()> {
    let made = fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder));
    made.map(drop).map_err(output::without_path)
}

fn cores() -> Check {
    match std::thread::available_parallelism() {
        Ok(cores) => Check::new("cores", cores.to_string()).unless(
            cores.get() < 2,
            Status::Warn,
            "the branches of a fan-out run one after the other",
        ),
        Err(error) => unknown("cores", &error),
    }
}

fn memory() -> Check {
    match roadrunner_sys::available_memory() {
        Ok(bytes) => Check::new("memory", format!("{} available", report::bytes(bytes))).unless(
            bytes < MEMORY_WANTED,
            Status::Warn,
            "the largest payloads, of 1 GiB, have no room; free some memory",
        ),
        Err(error) => unknown("memory", &error),
    }
}

/// One way to send large payloads to other hosts. None of them is needed: what is best to a peer is
/// measured on it.
fn network(figure: &Figure) -> Check {
    let (name, sendfile_does) = match figure.name {
        "send" => ("network: send", false),
        "sendfile" => ("network: sendfile", true),
        "splice" => ("network: splice", true),
        "zerocopy" => ("network: zerocopy", false),
        "uring" => ("network: uring", false),
        _ => ("network: vmsplice", false),
    };
    let speed = match &figure.speed {
        Ok(speed) => speed,
        Err(error) => {
            let advice = "other ways are used instead; a seccomp filter, kernel.io_uring_disabled or an old kernel can be why";
            let found = format!("not available: {error}");
            return Check::new(name, found).unless(true, Status::Warn, advice);
        }
    };
    let Speed { gib_per_second, sender_ns_per_byte, receiver_ns_per_byte, copied } = speed;
    let mut found = format!(
        "{gib_per_second:.1} GiB/s on loopback, {sender_ns_per_byte:.2} + {receiver_ns_per_byte:.2} ns of processor a byte"
    );
    found += match (figure.used, copied) {
        (false, _) => {
            "; never used: a peer on this host would read what the pages are used for next"
        }
        (true, true) => "; copied by the kernel there, not by a network card",
        (true, false) if sendfile_does => "; for payloads in sealed memory files",
        (true, false) => "",
    };
    Check::new(name, found)
}

fn read(path: &str) -> io::Result<String> {
    fs::read_to_string(path).map(|text| text.trim().to_owned())
}

fn unknown(name: &'static str, error: &io::Error) -> Check {
    Check::new(name, format!("unknown: {error}")).unless(true, Status::Warn, "is /proc mounted?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_compare_by_number() {
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("5.4-rc1"), Some((5, 4)));
        assert!(version("5.10.0") > Some(KERNEL_NEEDED));
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn the_chosen_setting_is_the_one_in_brackets() {
        assert_eq!(chosen("always [madvise] never"), Some("madvise"));
        assert_eq!(chosen("always"), None);
    }

    #[test]
    fn limits_are_found_by_name() {
        assert!(limit("Max open files").is_ok());
        assert!(limit("Max patience").is_err());
    }
}
