//! `roadrunner worker`: a process of a run, for the functions that are placed in it. Started by
//! other commands and not by people. It ends with its parent.

use std::io::{self, Write as _};
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;

use roadrunner_bench as scenarios;
use roadrunner_runtime::{App, Config, ModuleSource, Runtime, Terms, Trust};
use roadrunner_transport::{Protection, TcpServer, UnixServer};
use roadrunner_workflow::{Executable, Workflow};

use super::{demo, serve::http};
use crate::args::{Mode, Worker, WorkerLoad};
use crate::crew::{self, Addresses, READY};
use crate::exit::{Exit, Failure};
use crate::images;

pub(crate) fn run(options: &Worker) -> Result<Exit, Failure> {
    if !roadrunner_sys::end_with_parent(options.parent) {
        return Ok(Exit::Success);
    }
    let refused =
        |error: io::Error| Failure::new(Exit::Host, format!("can't take calls in: {error}"));
    let socket: OwnedFd = io::stdin().as_fd().try_clone_to_owned().map_err(refused)?;
    let app = match options.load {
        WorkerLoad::Manifest | WorkerLoad::Demo => Arc::clone(workflow(options)?.app()),
        WorkerLoad::Bench => scenarios::consumer(&Config::default())?,
        WorkerLoad::Baseline => return compared(socket, options.mode, Compared::Baseline),
        #[cfg(feature = "peers")]
        WorkerLoad::Iceoryx2 => return iceoryx2(socket),
        WorkerLoad::Bare => return compared(socket, options.mode, Compared::Bare),
        WorkerLoad::Gateway => return http::serve_echo(socket.into(), say_ready),
        WorkerLoad::Plain => {
            scenarios::serve_plain(socket.into(), say_ready).map_err(refused)?;
            return Ok(Exit::Success);
        }
    };
    serve(&app, socket, options).map_err(refused)
}

/// The part of a workflow that is placed here.
fn workflow(options: &Worker) -> Result<Executable, Failure> {
    let mut workflow = match &options.workflow {
        Some(path) => Workflow::load(path)?,
        None => demo::workflow()?,
    };
    crew::place(&mut workflow, options.mode);
    let mut placements = workflow.functions().iter().map(|function| &function.placement);
    let here = placements.find(|placement| workflow.say(placement) == options.here).cloned();
    let here = here.ok_or_else(|| {
        Failure::new(Exit::Usage, format!("no function is placed in {}", options.here))
    })?;
    images::place(&mut workflow, &here, &options.image)?;
    let runtime = Runtime::new(Config::default())?;
    let addresses = Addresses(options.peer.iter().cloned().collect());
    let protection = options.security.protection()?;
    addresses.load(options.parent, here, protection, workflow, |workflow, place| {
        let source = |path: &Path| match &options.workflow {
            Some(_) => ModuleSource::File(path.to_owned()),
            None => demo::module(path),
        };
        Ok(Executable::load(&runtime, workflow, &source, place)?)
    })
}

/// What takes calls in while this lives.
#[allow(dead_code, reason = "held for what it does")]
enum Server {
    Unix(UnixServer),
    Tcp(TcpServer),
}

/// Takes calls in over a socket that listens, until the parent ends.
fn serve(app: &Arc<App>, socket: OwnedFd, options: &Worker) -> io::Result<Exit> {
    let (door, terms) = (app.door(), app.terms());
    let _server = match options.mode {
        Mode::Network => Server::Tcp(TcpServer::on(
            TcpListener::from(socket),
            Protection::Loopback,
            door,
            terms,
        )?),
        _ => {
            let terms = Terms { trust: Trust::domain(options.parent), ..terms };
            Server::Unix(UnixServer::on(UnixListener::from(socket), door, terms)?)
        }
    };
    say_ready()?;
    loop {
        std::thread::park();
    }
}

/// What a benchmark compares with.
enum Compared {
    Baseline,
    Bare,
}

/// Takes payloads in over one connection, by a way that a benchmark compares with.
fn compared(socket: OwnedFd, mode: Mode, way: Compared) -> Result<Exit, Failure> {
    let refused = |error: io::Error| Failure::new(Exit::Host, format!("can't listen: {error}"));
    say_ready().map_err(refused)?;
    let config = Config::default();
    if mode == Mode::Network {
        let (stream, _) = TcpListener::from(socket).accept().map_err(refused)?;
        stream.set_nodelay(true).map_err(refused)?;
        match way {
            Compared::Baseline => scenarios::http_in(stream, &config)?,
            Compared::Bare => scenarios::bare_in(stream)?,
        }
    } else {
        let (stream, _) = UnixListener::from(socket).accept().map_err(refused)?;
        match way {
            Compared::Baseline => scenarios::stream_in(stream, &config)?,
            Compared::Bare => scenarios::bare_in(stream)?,
        }
    }
    Ok(Exit::Success)
}

#[cfg(feature = "peers")]
fn iceoryx2(socket: OwnedFd) -> Result<Exit, Failure> {
    let refused = |error: io::Error| Failure::new(Exit::Host, format!("can't listen: {error}"));
    say_ready().map_err(refused)?;
    let (control, _) = UnixListener::from(socket).accept().map_err(refused)?;
    scenarios::iceoryx2_in(control)?;
    Ok(Exit::Success)
}

fn say_ready() -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(READY.as_bytes())?;
    stdout.flush()
}
