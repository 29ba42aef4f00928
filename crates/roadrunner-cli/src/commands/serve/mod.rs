//! `roadrunner serve`: a node, which keeps workflows ready and takes calls of them until it is told to
//! end.
//!
//! ```text
//! fronts (threads of the transports)   calls -> catalog -> sandboxes
//! signals                              what was told -> the main thread
//! manifests                            changed files, SIGHUP -> another version in the catalog
//! ```

mod http;
mod manifests;

use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use roadrunner_runtime::{Config, Runtime, Terms};
use roadrunner_transport::{TcpServer, UnixServer};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use self::http::Http;
use self::manifests::{Manifests, Served};
use crate::args::Serve;
use crate::exit::{Exit, Failure};
use crate::node::{self, Folder};
use crate::output;

pub(crate) fn run(options: &Serve) -> Result<Exit, Failure> {
    let elsewhere = options.node.is_some() || options.http.is_some();
    let socket = match &options.socket {
        Some(path) => Some(path.clone()),
        None if elsewhere => None,
        None => Some(node::usual_socket(Folder::Make)?),
    };
    let runtime = Runtime::new(Config::default())?;
    let manifests = Manifests::load(&runtime, &options.workflows, socket.is_some())?;
    let catalog = Arc::clone(manifests.catalog());
    // Payloads on their way in belong to none of the workflows: whoever lands them gets pages with the
    // payload and zeros. An app without functions is a trust domain of its own.
    let nobody = runtime.load(Vec::new()).map_err(|(_, error)| error)?;
    let (events, told) = channel();
    listen_to_signals(events.clone()).map_err(no_thread)?;
    let mut fronts = Fronts::open(socket.as_deref(), options, &catalog, &nobody.terms())?;
    let (what, places, process) = (manifests.say(), fronts.say(), std::process::id());
    // One reload that waits is enough, however often it is asked for.
    let (reload, asked) = sync_channel(1);
    let keep_fresh = move || manifests.keep_fresh(&asked);
    thread::Builder::new().name("manifests".into()).spawn(keep_fresh).map_err(no_thread)?;
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
    thread::Builder::new().name("signals".into()).spawn(move || {
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
    if thread::Builder::new().name("stop".into()).spawn(stop).is_ok() {
        while told.recv().is_ok_and(|event| event == Event::Reload) {}
    }
}

/// What takes calls in. Each kind of front listens by itself and passes calls to the catalog.
struct Fronts {
    unix: Option<(UnixServer, PathBuf)>,
    tcp: Option<(TcpServer, String)>,
    http: Option<Http>,
}

impl Fronts {
    fn open(
        socket: Option<&Path>,
        options: &Serve,
        catalog: &Arc<Served>,
        terms: &Terms,
    ) -> Result<Self, Failure> {
        let unix = socket.map(|path| {
            let bound = UnixServer::bind(path, catalog.clone(), terms.clone());
            let bound = bound.map(|server| (server, path.to_owned()));
            bound.map_err(|error| refused(&path.display().to_string(), &error))
        });
        let tcp = options.node.as_ref().map(|address| {
            listen_on(address, catalog, terms).map_err(|error| refused(address, &error))
        });
        let http = options.http.map(|address| {
            let http = Http::open(address, catalog, options.grace);
            http.map_err(|error| refused(&format!("http://{address}"), &error))
        });
        Ok(Self { unix: unix.transpose()?, tcp: tcp.transpose()?, http: http.transpose()? })
    }

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
        thread::scope(|scope| {
            // All at once: they share the grace, and none takes calls while another one stops.
            unix.map(|(mut unix, _)| scope.spawn(move || unix.stop(grace)));
            tcp.map(|(mut tcp, _)| scope.spawn(move || tcp.stop(grace)));
            http.map(|http| scope.spawn(move || http.stop()));
        });
    }
}

fn listen_on(
    address: &str,
    catalog: &Arc<Served>,
    terms: &Terms,
) -> io::Result<(TcpServer, String)> {
    let listener = TcpListener::bind(address)?;
    let address = listener.local_addr()?.to_string();
    Ok((TcpServer::on(listener, catalog.clone(), terms.clone())?, address))
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
