//! Calls between hosts that show who they are.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use roadrunner_buffer::{Home, Sealed};
use roadrunner_transport::conformance::{self, ECHO, EchoInbox};
use roadrunner_transport::{
    Call, Caller, Fault, Identity, Inbox, Node, Payload, Protection, Reply, Tcp, TcpServer, Terms,
    Trace, Transport, Trust, Undelivered,
};

/// Who signs certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A folder with a certificate of these names.
    fn folder(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> tempfile::TempDir {
        let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| fs::write(folder.path().join(name), text).unwrap();
        write("ca.pem", self.0.pem());
        write("cert.pem", certificate.pem());
        write("key.pem", key.serialize_pem());
        folder
    }

    fn identity(&self, names: &[&str]) -> Identity {
        Identity::load(self.folder(names, |_| {}).path()).unwrap()
    }
}

/// Notes who calls.
#[derive(Default)]
struct Noting {
    echo: EchoInbox,
    callers: Arc<Mutex<Vec<Caller>>>,
}

impl Inbox for Noting {
    fn accept<'p>(&self, call: Call<'p>) -> Result<Reply, Undelivered<'p>> {
        self.callers.lock().unwrap().push(call.caller.clone());
        self.echo.accept(call)
    }
}

/// A node on loopback.
struct Running {
    address: String,
    home: Home,
    terms: Terms,
    callers: Arc<Mutex<Vec<Caller>>>,
    _server: TcpServer,
}

impl Running {
    fn start(protection: Protection) -> Self {
        let inbox = Noting::default();
        let (home, callers) = (inbox.echo.home().clone(), Arc::clone(&inbox.callers));
        let terms = Terms { home: home.clone(), payload_limit: 1 << 30, trust: Trust::None };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = TcpServer::on(listener, protection, Arc::new(inbox), terms.clone()).unwrap();
        Self { address, home, terms, callers, _server: server }
    }

    fn way(&self, name: Option<&str>, protection: Protection) -> Tcp {
        let (address, name) = (self.address.clone(), name.map(str::to_owned));
        Tcp::new(Node { address, name, workflow: None, protection }, self.terms.clone())
    }

    fn callers(&self) -> Vec<Caller> {
        self.callers.lock().unwrap().clone()
    }

    /// The words with which a call fails that must not have been delivered.
    fn refusal(&self, name: Option<&str>, protection: Protection) -> String {
        let since = Instant::now();
        let undelivered = call(&self.way(name, protection), &self.home).unwrap_err();
        assert!(since.elapsed() < TIME, "long before the deadline");
        assert!(matches!(undelivered.fault, Fault::Unreachable { .. }), "{}", undelivered.fault);
        let Some(Payload::One(back)) = undelivered.payload else { panic!("no payload") };
        assert_eq!(back.bytes().unwrap(), LETTER);
        assert_eq!(self.callers(), [], "nobody was called");
        undelivered.fault.to_string()
    }
}

const TIME: Duration = Duration::from_secs(20);
const LETTER: &[u8] = b"letter";

fn call(way: &Tcp, home: &Home) -> Result<Vec<u8>, Undelivered<'static>> {
    let payload = Sealed::write(LETTER.len(), home, |place| {
        place.copy_from_slice(LETTER);
        Ok(())
    });
    let (payload, since) = (Payload::One(payload.unwrap()), Instant::now());
    let (deadline, caller) = (since + TIME, Caller::Unnamed);
    let call =
        Call { target: ECHO, payload, since, deadline, depth: 0, caller, trace: Trace::default() };
    way.send(call).map(|mut reply| reply.payload().unwrap().bytes().unwrap().to_vec())
}

#[test]
fn the_protected_way_conforms_and_names_its_callers() {
    let authority = Authority::new("ours");
    let node = Running::start(Protection::Tls(authority.identity(&["edge-1", "edge"])));
    let caller = authority.identity(&["laptop", "*.lan", "desk"]);
    let way = node.way(Some("edge-1"), Protection::Tls(caller));
    conformance::all(&way, &node.home);
    let expected = Caller::Named(["laptop".to_owned(), "desk".to_owned()].into());
    assert!(!node.callers().is_empty());
    assert!(node.callers().iter().all(|caller| *caller == expected));
}

#[test]
fn a_node_without_a_name_is_known_by_its_host() {
    let authority = Authority::new("ours");
    let by_name = Running::start(Protection::Tls(authority.identity(&["localhost"])));
    let caller = Protection::Tls(authority.identity(&["laptop"]));
    let address = by_name.address.replace("127.0.0.1", "localhost");
    let node = Node { address, name: None, workflow: None, protection: caller.clone() };
    let way = Tcp::new(node, by_name.terms.clone());
    assert_eq!(call(&way, &by_name.home).unwrap(), LETTER);
    let by_number = Running::start(Protection::Tls(authority.identity(&["127.0.0.1", "edge-1"])));
    assert_eq!(call(&by_number.way(None, caller), &by_number.home).unwrap(), LETTER);
}

#[test]
fn strangers_are_refused_by_whoever_finds_out() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let node = Running::start(Protection::Tls(ours.identity(&["edge-1"])));
    let mine = || Protection::Tls(ours.identity(&["laptop"]));

    let said = node.refusal(Some("edge-2"), mine());
    assert!(said.contains("its certificate is not accepted here"), "{said}");
    assert!(said.contains("edge-2") && said.contains("edge-1"), "{said}");

    let said = node.refusal(Some("edge-1"), Protection::Tls(theirs.identity(&["laptop"])));
    assert!(said.contains("its certificate is not accepted here"), "{said}");

    // Believes both authorities, and is believed by neither.
    let folder = theirs.folder(&["laptop"], |_| {});
    let both = ours.0.pem() + &theirs.0.pem();
    fs::write(folder.path().join("ca.pem"), both).unwrap();
    let stranger = Identity::load(folder.path()).unwrap();
    let said = node.refusal(Some("edge-1"), Protection::Tls(stranger));
    assert!(said.contains("it refused this side's certificate"), "{said}");

    assert_eq!(call(&node.way(Some("edge-1"), mine()), &node.home).unwrap(), LETTER);
}

#[test]
fn one_side_alone_with_tls_is_one_clear_error() {
    let authority = Authority::new("ours");
    let protected = Running::start(Protection::Tls(authority.identity(&["edge-1"])));
    let undelivered = call(&protected.way(None, Protection::Loopback), &protected.home);
    // The plain caller's frame may have been read whole, for all that it can know.
    let fault = undelivered.unwrap_err().fault;
    assert!(matches!(fault, Fault::Unreachable { .. } | Fault::Lost { .. }), "{fault}");
    assert_eq!(protected.callers(), []);

    let plain = Running::start(Protection::Loopback);
    let said = plain.refusal(Some("edge-1"), Protection::Tls(authority.identity(&["laptop"])));
    assert!(said.contains("it does not speak TLS"), "{said}");
}

#[test]
fn a_node_that_speaks_no_more_is_given_up_at_the_deadline() {
    let authority = Authority::new("ours");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let node = Running::start(Protection::Loopback);
    let address = silent.local_addr().unwrap().to_string();
    let protection = Protection::Tls(authority.identity(&["laptop"]));
    let way = Tcp::new(
        Node { address, name: Some("edge-1".into()), workflow: None, protection },
        node.terms,
    );
    let (payload, since) = (Payload::One(Sealed::empty()), Instant::now());
    let deadline = since + Duration::from_millis(200);
    let call = Call {
        target: ECHO,
        payload,
        since,
        deadline,
        depth: 0,
        caller: Caller::Unnamed,
        trace: Trace::default(),
    };
    let undelivered = way.send(call).unwrap_err();
    assert!(matches!(undelivered.fault, Fault::Unreachable { .. }), "{}", undelivered.fault);
    assert!(undelivered.payload.is_some());
    assert!(Instant::now() >= deadline);
}

#[test]
fn nonsense_and_silence_cost_their_senders_alone() {
    let authority = Authority::new("ours");
    let node = Running::start(Protection::Tls(authority.identity(&["edge-1"])));
    let mut silent = Vec::new();
    for _ in 0..8 {
        silent.push(TcpStream::connect(&node.address).unwrap());
        let mut nonsense = TcpStream::connect(&node.address).unwrap();
        nonsense.write_all(&[0x47; 64]).unwrap();
        // It is told so, and then the connection ends.
        let mut said = Vec::new();
        let _ = nonsense.read_to_end(&mut said);
    }
    let way = node.way(Some("edge-1"), Protection::Tls(authority.identity(&["laptop"])));
    assert_eq!(call(&way, &node.home).unwrap(), LETTER);
}

#[test]
fn a_large_payload_comes_whole_from_many_at_a_time() {
    const BYTES: usize = (8 << 20) + 5;
    let authority = Authority::new("ours");
    let node = Running::start(Protection::Tls(authority.identity(&["edge-1"])));
    let way = node.way(Some("edge-1"), Protection::Tls(authority.identity(&["laptop"])));
    thread::scope(|scope| {
        for number in 0..4_u8 {
            let (way, home) = (&way, &node.home);
            scope.spawn(move || {
                let fill = |at: usize| at.to_le_bytes()[0] ^ at.to_le_bytes()[1] ^ number;
                let payload = Sealed::write(BYTES, home, |place| {
                    place.iter_mut().enumerate().for_each(|(at, byte)| *byte = fill(at));
                    Ok(())
                });
                let (payload, since) = (Payload::One(payload.unwrap()), Instant::now());
                let (deadline, caller) = (since + TIME, Caller::Unnamed);
                let call = Call {
                    target: ECHO,
                    payload,
                    since,
                    deadline,
                    depth: 0,
                    caller,
                    trace: Trace::default(),
                };
                let mut reply = way.send(call).unwrap();
                let back = reply.payload().unwrap();
                let back = back.bytes().unwrap();
                assert_eq!(back.len(), BYTES);
                assert!(back.iter().enumerate().all(|(at, &byte)| byte == fill(at)));
            });
        }
    });
}

#[test]
fn folders_that_hold_no_identity() {
    let authority = Authority::new("ours");
    let good = authority.folder(&["edge-1"], |_| {});
    let other = authority.folder(&["edge-2"], |_| {});
    let why = |change: &dyn Fn(&Path)| {
        let folder = tempfile::tempdir().unwrap();
        for name in ["ca.pem", "cert.pem", "key.pem"] {
            fs::copy(good.path().join(name), folder.path().join(name)).unwrap();
        }
        change(folder.path());
        Identity::load(folder.path()).unwrap_err().to_string()
    };
    let said = why(&|at| fs::remove_file(at.join("key.pem")).unwrap());
    assert!(said.contains("key.pem: No such file"), "{said}");
    assert!(said.ends_with("a folder for TLS has ca.pem, cert.pem and key.pem"), "{said}");
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        for text in ["", "nonsense", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"]
        {
            let said = why(&|at| fs::write(at.join(name), text).unwrap());
            assert!(said.contains(&format!("{name} is no ")), "{name} {text:?}: {said}");
        }
    }
    let said = why(&|at| {
        fs::copy(other.path().join("key.pem"), at.join("key.pem")).unwrap();
    });
    assert!(said.contains("key.pem is no key of this certificate"), "{said}");
    let said = why(&|at| fs::write(at.join("ca.pem"), Authority::new("theirs").0.pem()).unwrap());
    assert!(said.contains("cert.pem would be refused by other nodes"), "{said}");
    let expired = authority.folder(&["edge-1"], |params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let said = Identity::load(expired.path()).unwrap_err().to_string();
    assert!(said.contains("would be refused by other nodes") && said.contains("expired"), "{said}");
    let nameless = authority.folder(&[], |_| {});
    let said = Identity::load(nameless.path()).unwrap_err().to_string();
    assert!(said.contains("it has no DNS name"), "{said}");
    assert_eq!(Identity::load(good.path()).unwrap().names(), ["edge-1"]);
}
