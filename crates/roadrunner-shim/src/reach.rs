//! What a called function leads to, and where all of that is: pure, of the registry's entries and the annotations.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::net::SocketAddr;

use roadrunner_transport::Node;

use crate::function::{Reach, Row, environment, head};
use crate::functions::{Extent, Own};
use crate::registry::Entry;

/// What a workflow consists of, as the registry has it.
pub(crate) struct Reached {
    pub(crate) manifest: String,
    /// The ways out of this pod, by the names that they have in the manifest.
    pub(crate) ways: HashMap<String, Way>,
}

/// Where calls go that leave a pod.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// To another pod of this host.
    Pod(SocketAddr),
    /// To another node.
    Node(Node),
}

/// Who has to do with a function, and how.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    /// It comes after another one.
    follows: bool,
    /// Another one calls it itself.
    is_called: bool,
}

impl Reached {
    /// All that a function leads to: what comes after it, and whom each of them may call.
    pub(crate) fn from(
        entry: &str,
        extent: Extent,
        (pod, own): (&str, &BTreeMap<String, Own>),
        entries: &BTreeMap<String, Entry>,
    ) -> Result<Self, String> {
        let mut reached = Self { manifest: head(entry), ways: HashMap::new() };
        let (mut seen, mut waiting) = (vec![entry], vec![entry]);
        let mut away: BTreeMap<&str, Asked> = BTreeMap::new();
        while let Some(name) = waiting.pop() {
            let Some(found) = entries.get(name) else {
                if away.contains_key(name) {
                    continue;
                }
                return Err(format!("nobody serves the function {name}"));
            };
            let here = own.get(name).filter(|_| found.pod == pod);
            // What others do alone is all that a caller needs of them; what they call is theirs.
            let calls = if here.is_some() { &found.calls[..] } else { &[] };
            let next = if extent == Extent::Alone { &[] } else { &found.next[..] };
            let placement = match here {
                Some(_) => "local".to_owned(),
                None => format!("process:{}", reached.pod(found)?),
            };
            reached.manifest += &Row { name, next, calls, placement: &placement }.text();
            if let Some(own) = here {
                reached.manifest += &own.served.limits;
                reached.manifest += &environment(name, &own.env);
                let others = || next.iter().chain(calls).map(String::as_str);
                within_reach(name, own.served.reach, pod, others(), entries)?;
            }
            // The called function says where those are that no pod of this host serves.
            let is_away = |it: &&String| {
                !entries.contains_key(*it)
                    && own.get(entry).is_some_and(|own| own.served.away.has(it))
            };
            for it in next.iter().filter(is_away) {
                away.entry(it).or_default().follows = true;
            }
            for it in calls.iter().filter(is_away) {
                away.entry(it).or_default().is_called = true;
            }
            for it in next.iter().chain(calls).map(String::as_str) {
                if !seen.contains(&it) {
                    seen.push(it);
                    waiting.push(it);
                }
            }
        }
        for (name, asked) in away {
            reached.node(name, asked, own.get(entry))?;
        }
        Ok(reached)
    }

    /// Adds a function of another node, which goes on from there by itself.
    fn node(&mut self, name: &str, asked: Asked, entry: Option<&Own>) -> Result<(), String> {
        if asked.follows && asked.is_called {
            return Err(format!(
                "function {name} is on another node, where it can follow a function or be called by one, but not both"
            ));
        }
        let node = entry.and_then(|own| own.served.away.node(name, asked.follows, &own.protection));
        let node = node.ok_or_else(|| format!("nobody serves the function {name}"))?;
        let process = format!("node-{}", self.ways.len());
        let placement = format!("process:{process}");
        self.manifest += &Row { name, next: &[], calls: &[], placement: &placement }.text();
        self.ways.insert(process, Way::Node(node));
        Ok(())
    }

    /// The name of another pod's process in the manifest, which pods' own names need not be good for.
    fn pod(&mut self, entry: &Entry) -> Result<String, String> {
        let socket = entry.socket.as_path();
        let is_it =
            |way: &Way| matches!(way, Way::Pod(address) if address.as_pathname() == Some(socket));
        if let Some((name, _)) = self.ways.iter().find(|(_, way)| is_it(way)) {
            return Ok(name.clone());
        }
        let name = format!("pod-{}", self.ways.len());
        let address = SocketAddr::from_pathname(socket)
            .map_err(|error| format!("pod {} can't be called: {error}", entry.pod))?;
        self.ways.insert(name.clone(), Way::Pod(address));
        Ok(name)
    }
}

/// Whether all that a function of this pod hands over to is as near as its annotation wants it.
fn within_reach<'a>(
    name: &str,
    reach: Reach,
    pod: &str,
    mut others: impl Iterator<Item = &'a str>,
    entries: &BTreeMap<String, Entry>,
) -> Result<(), String> {
    let (what, mode) = match reach {
        Reach::Pod => ("in its own pod", "user"),
        Reach::Host => ("on its own host", "kernel"),
        Reach::Anywhere => return Ok(()),
    };
    let far = others.find_map(|it| match entries.get(it) {
        Some(entry) if reach == Reach::Pod && entry.pod != pod => {
            Some(format!("{it} is in pod {}", entry.pod))
        }
        Some(_) => None,
        None => Some(format!("no pod of this host serves {it}")),
    });
    far.map_or(Ok(()), |far| {
        Err(format!(
            "function {name} hands over {what} only (dev.roadrunner/mode: {mode}), and {far}"
        ))
    })
}
