//! `roadrunner serve`: a node, which keeps workflows ready and takes calls of them until it is told to
//! end.
//!
//! ```text
//! fronts (threads of the transports)   calls -> catalog -> sandboxes
//! signals                              what was told -> the main thread
//! manifests                            changed files, SIGHUP -> another version in the catalog
//! ```

pub(super) mod http;
mod manifests;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::time::Duration;

use roadrunner_runtime::{Config, Runtime, Terms};
use roadrunner_transport::{Protection, TcpServer, UnixServer};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::http::Http;
use self::manifests::{How, Manifests, Served};
use crate::args::Serve;
use crate::exit::{Exit, Failure};
use crate::node::{self, Folder};
use crate::output;

pub(crate) fn run(options: &Serve) -> Result<Exit, Failure> {
    let elsewhere = options.node.is_some() || options.http.is_some() || options.part.is_some();
    options.security.warn();
    let protection = options.security.protection()?;
    if let Some(node) = &options.part {
        options.security.names_node(&protection, node)?;
    }
    let socket = match &options.socket {
        Some(path) => Some(path.clone()),
        None if elsewhere => None,
        None => Some(node::usual_socket(Folder::Make)?),
    };
    let runtime = Runtime::new(Config::default())?;
    let (part, security) = (options.part.clone(), options.security.clone());
    let how = How { handed_out: socket.is_some(), part, security };
    let manifests = Manifests::load(&runtime, &options.workflows, how)?;
    let from_manifest = || options.part.as_ref().and_then(|node| manifests.address_of(node));
    let node = options.node.clone().or_else(from_manifest);
    let catalog = Arc::clone(manifests.catalog());
    // Payloads on their way in belong to none of the workflows: whoever lands them gets pages with the
    // payload and zeros. An app without functions is a trust domain of its own.
    let nobody = runtime.load(Vec::new()).map_err(|(_, error)| error)?;
    let (events, told) = channel();
    listen_to_signals(events.clone()).map_err(no_thread)?;
    let places = Places { socket: socket.as_deref(), node: node.as_deref(), http: options.http };
    let mut fronts = places.open((&catalog, &nobody.terms()), protection, options.grace)?;
    let (what, places, process) = (manifests.say(), fronts.say(), std::process::id());
    // One reload that waits is enough, however often it is asked for.
    let (reload, asked) = sync_channel(1);
    let keep_fresh = move || manifests.keep_fresh(&asked);
    roadrunner_sys::spawn("manifests", keep_fresh).map_err(no_thread)?;
    // Not before all is there: who hears this counts on it.
    output::note(&format!("roadrunner: process {process} serves {what} at {places}\n"));

    let again = || {
        let _ = reload.try_send(());
    };
    stay(&told, again);
    // Gone before this is told anything else, however it ends then.
    fronts.hide();
    if catalog.running() > 0 {
        let (running, grace) = (calls(catalog.running()), options.grace);
        let what = format!(
            "roadrunner: {running} may take {grace:?} to end; a second signal ends at once\n"
        );
        output::note(&what);
    }
    end(fronts, &told, events, options.grace);
    if catalog.running() > 0 {
        output::note(&format!("roadrunner: {} did not end\n", calls(catalog.running())));
    }
    Ok(Exit::Success)
}

/// What the main thread hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// Manifests are to be loaded again.
    Reload,
    /// The node is to end.
    End,
    /// No call is under way any more, or the grace is over.
    Ended,
}

/// Has signals come as events from now on.
fn listen_to_signals(events: Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    roadrunner_sys::spawn("signals", move || {
        for signal in signals.forever() {
            let event = if signal == SIGHUP { Event::Reload } else { Event::End };
            if events.send(event).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}

/// Serves until it is told to end.
fn stay(told: &Receiver<Event>, again: impl Fn()) {
    while told.recv().is_ok_and(|event| event == Event::Reload) {
        again();
    }
}

/// Waits until all calls have ended, at most as long as `grace`; if it is told to end, no longer.
fn end(fronts: Fronts, told: &Receiver<Event>, events: Sender<Event>, grace: Duration) {
    let stop = move || {
        fronts.stop(grace);
        let _ = events.send(Event::Ended);
    };
    // Without a thread to spare there is no grace, and the process ends now.
    if roadrunner_sys::spawn("stop", stop).is_ok() {
        while told.recv().is_ok_and(|event| event == Event::Reload) {}
    }
}

/// What takes calls in. Each kind of front listens by itself and passes calls to the catalog.
struct Fronts {
    unix: Option<(UnixServer, PathBuf)>,
    tcp: Option<(TcpServer, String)>,
    http: Option<Http>,
}

/// Where calls come in.
struct Places<'p> {
    socket: Option<&'p Path>,
    node: Option<&'p str>,
    http: Option<SocketAddr>,
}

impl Places<'_> {
    fn open(
        self,
        (catalog, terms): (&Arc<Served>, &Terms),
        protection: Protection,
        grace: Duration,
    ) -> Result<Fronts, Failure> {
        let unix = self.socket.map(|path| {
            let bound = UnixServer::bind(path, catalog.clone(), terms.clone());
            let bound = bound.map(|server| (server, path.to_owned()));
            bound.map_err(|error| refused(&path.display().to_string(), &error))
        });
        let tcp = self.node.map(|address| {
            let listening = TcpListener::bind(address).and_then(|listener| {
                let address = listener.local_addr()?.to_string();
                let (inbox, terms) = (catalog.clone(), terms.clone());
                Ok((TcpServer::on(listener, protection, inbox, terms)?, address))
            });
            listening.map_err(|error| refused(address, &error))
        });
        let http = self.http.map(|address| {
            let http = Http::open(address, catalog, grace);
            http.map_err(|error| refused(&format!("http://{address}"), &error))
        });
        Ok(Fronts { unix: unix.transpose()?, tcp: tcp.transpose()?, http: http.transpose()? })
    }
}

impl Fronts {
    /// Where they are.
    fn say(&self) -> String {
        let unix = self.unix.as_ref().map(|(_, path)| path.display().to_string());
        let tcp = self.tcp.as_ref().map(|(_, address)| address.clone());
        let http = self.http.as_ref().map(|http| format!("http://{}", http.address));
        unix.into_iter().chain(tcp).chain(http).collect::<Vec<_>>().join(" and ")
    }

    /// Has nobody new find them.
    fn hide(&mut self) {
        if let Some((unix, _)) = &mut self.unix {
            unix.hide();
        }
    }

    /// Takes no more calls, and gives those under way as long as `grace` to end.
    fn stop(self, grace: Duration) {
        let Self { unix, tcp, http } = self;
        // All at once: they share the grace, and none takes calls while another one stops.
        let stops = [
            unix.map(|(mut unix, _)| roadrunner_sys::spawn("stop", move || unix.stop(grace))),
            tcp.map(|(mut tcp, _)| roadrunner_sys::spawn("stop", move || tcp.stop(grace))),
            http.map(|http| roadrunner_sys::spawn("stop", move || http.stop())),
        ];
        // Without a thread to spare one has ended already, without grace.
        for stop in stops.into_iter().flatten().flatten() {
            let _ = stop.join();
        }
    }
}

fn refused(place: &str, error: &io::Error) -> Failure {
    let exit = match error.kind() {
        io::ErrorKind::Unsupported => Exit::Usage,
        _ => Exit::Host,
    };
    Failure::new(exit, format!("can't take calls at {place}: {error}"))
}

fn no_thread(error: io::Error) -> Failure {
    Failure::new(Exit::Host, format!("can't start a thread: {error}"))
}

fn calls(number: usize) -> String {
    if number == 1 { "1 call".into() } else { format!("{number} calls") }
}
