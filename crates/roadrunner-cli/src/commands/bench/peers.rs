//! `roadrunner bench peers`: beside what others hand payloads over with.

use crate::args::Peers;
use crate::exit::{Exit, Failure};

#[cfg(not(feature = "peers"))]
pub(super) fn run(_options: &Peers) -> Result<Exit, Failure> {
    let what = "this build has nothing to compare with; `cargo run --release --features peers -- bench peers` makes one that has iceoryx2";
    Err(Failure::new(Exit::Unsupported, what))
}

#[cfg(feature = "peers")]
pub(super) fn run(options: &Peers) -> Result<Exit, Failure> {
    measured::run(options)
}

#[cfg(feature = "peers")]
mod measured {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::{fs, io};

    use roadrunner_bench as scenarios;
    use roadrunner_bench::{Figures, Other, Place};
    use roadrunner_runtime::{Config, Terms};
    use signal_hook::consts::{SIGINT, SIGTERM};

    use super::super::{measure, print, ratio, row, time, within_limit};
    use super::{Exit, Failure, Peers};
    use crate::args::Mode;
    use crate::crew::{Address, Hosts, Load, Partner};
    use crate::{output, report};

    /// What iceoryx2 leaves behind where a process of it is killed goes with this value.
    struct Files {
        folder: tempfile::TempDir,
        prefix: String,
    }

    impl Files {
        fn new() -> io::Result<Self> {
            // Short: iceoryx2 has sockets in there, whose paths may have 107 bytes.
            let folder = tempfile::Builder::new().prefix("rr").rand_bytes(4).tempdir()?;
            let prefix = format!("rr{}_", std::process::id());
            Ok(Self { folder, prefix })
        }

        fn place(&self) -> Place {
            Place { root: self.folder.path().to_owned(), prefix: self.prefix.clone() }
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            for file in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
                if file.file_name().to_string_lossy().starts_with(&self.prefix) {
                    let _ = fs::remove_file(file.path());
                }
            }
        }
    }

    pub(super) fn run(options: &Peers) -> Result<Exit, Failure> {
        options.size.iter().try_for_each(|size| within_limit(*size))?;
        let refused = |error: io::Error| Failure::new(Exit::Host, error.to_string());
        // Ctrl-C ends it between two rounds, so that nothing is left in /dev/shm.
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(refused)?;
        }
        if !options.json {
            output::print(&row(TITLE))?;
        }
        for &size in &options.size {
            let Some(found) = one(size, options.runs, &stop)? else {
                // As if it had not been caught.
                let _ = signal_hook::low_level::emulate_default_handler(SIGINT);
                return Ok(Exit::Host);
            };
            print(&found, options.json, rows)?;
        }
        if !options.json {
            let runs = options.runs;
            output::print(&format!("Times are medians, runs of each way: {runs}. {NOTE}\n"))?;
        }
        Ok(Exit::Success)
    }

    fn one(
        size: u64,
        runs: u32,
        stop: &Arc<AtomicBool>,
    ) -> Result<Option<scenarios::Peers>, Failure> {
        let refused = |error: io::Error| {
            Failure::new(Exit::Host, format!("can't connect to another process: {error}"))
        };
        let files = Files::new().map_err(refused)?;
        let start = |load| Partner::start(&load, Mode::Kernel);
        let partners = [start(Load::Bench)?, start(Load::Iceoryx2)?, start(Load::Iceoryx2)?];
        let [ours, asleep, spinning] = &partners;
        let connect = |partner: &Partner| {
            let Address::Process(name) = &partner.address else {
                return Err(io::ErrorKind::Unsupported.into());
            };
            let control = UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
            Ok(Other { control, pid: partner.pid() })
        };
        let others = [connect(asleep).map_err(refused)?, connect(spinning).map_err(refused)?];
        let way = |terms: &Terms| {
            let way = ours.address.way(std::process::id(), terms, &Hosts::none());
            way.unwrap_or_else(|_| unreachable!("the partner listens under this name"))
        };
        let what = format!("moving {}", report::bytes(size));
        let found = measure(what, |progress| {
            let (config, place) = (Config::default(), files.place());
            let ours = (&way as &dyn Fn(&Terms) -> _, ours.pid());
            scenarios::peers(&config, size, runs, ours, others, &place, stop, progress)
        });
        // Their connections are closed now, so they end and take their files with them.
        let [ours, asleep, spinning] = partners;
        drop(ours);
        asleep.end();
        spinning.end();
        if stop.load(Ordering::Relaxed) { Ok(None) } else { found }
    }

    const TITLE: [&str; 7] =
        ["size", "way", "hand-over", "end to end", "CPU ns/B", "hand-over", "end to end"];
    const NOTE: &str = "The last two columns are how many times Roadrunner's is that way's. \
        Roadrunner's functions are in sandboxes,\niceoryx2's are native. \"spinning\" ends wait with a \
        processor each, the others asleep.";

    fn rows(found: &scenarios::Peers) -> String {
        let ours = &found.roadrunner;
        let line = |way: &str, figures: &Figures| {
            row([
                report::bytes(found.size_bytes),
                way.to_owned(),
                time(figures.handover_us.p50),
                time(figures.end_to_end_us.p50),
                format!("{:.3}", figures.cpu_ns_per_byte),
                ratio(ours.handover_us.p50, figures.handover_us.p50),
                ratio(ours.end_to_end_us.p50, figures.end_to_end_us.p50),
            ])
        };
        [
            line("Roadrunner", ours),
            line("iceoryx2", &found.iceoryx2),
            line("spinning", &found.iceoryx2_spinning),
        ]
        .concat()
    }
}
