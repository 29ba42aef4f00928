//! What a process keeps after very many hand-overs: nothing. And what one costs the kernel.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use roadrunner_runtime::{App, Backing, Payload};

use crate::support::{ECHO, MOVES, bytes_of, guest, load, pattern, runtime, sealed, send, spec};

const HAND_OVERS: usize = 1_000_000;
/// Hand-overs after which everything that is kept between two has been made.
const WARM: usize = 1000;

/// What this process holds of the kernel's.
#[derive(Debug)]
struct Holding {
    mappings: usize,
    descriptors: usize,
    resident_kib: usize,
}

impl Holding {
    fn now() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        Self {
            mappings: fs::read_to_string("/proc/self/maps").unwrap().lines().count(),
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
            resident_kib: resident.trim().trim_end_matches(" kB").parse().unwrap(),
        }
    }

    /// Mappings may differ by those of the last payload's windows and slots, which are there or not
    /// depending on its length; resident memory by the pool's last few ranges, of 3 MB at most each,
    /// and the allocator's own slack. A leak of one mapping or page in a hundred hand-overs is far over.
    fn is_still(&self, first: &Self) {
        assert!(self.mappings <= first.mappings + 16, "mappings: {first:?} became {self:?}");
        assert_eq!(self.descriptors, first.descriptors, "{first:?} became {self:?}");
        assert!(
            self.resident_kib <= first.resident_kib + (24 << 10),
            "memory: {first:?} became {self:?}"
        );
    }
}

/// Lengths of payloads; the rare ones are large.
fn len_of(chain: usize) -> usize {
    match chain % 40 {
        0 => 2_500_000,
        1..=9 => 20_000 + chain % 5000,
        10..=14 => 100_000,
        _ => 1 + chain % 4000,
    }
}

/// Sends payloads through `functions`, each a hundred times, until so many hand-overs were made.
fn hand_over(app: &Arc<App>, functions: &[&str], from: usize, to: usize) {
    const CHAIN: usize = 100;
    for chain in from / CHAIN..to / CHAIN {
        let len = len_of(chain);
        let mark = u8::try_from(chain % 250).unwrap() + 1;
        let mut payload = Payload::One(sealed(app, &vec![mark; len]));
        for hop in 0..CHAIN {
            let target = functions[hop % functions.len()];
            let reply = app.call(target, payload, Instant::now()).unwrap();
            if len >= MOVES {
                assert_eq!(reply.account.traffic.copied, 0, "chain {chain}, hop {hop}");
            }
            payload = Payload::Held(reply);
        }
        let Payload::Held(mut reply) = payload else { unreachable!("hops were made") };
        let arrived = reply.payload().unwrap();
        let arrived = arrived.bytes().unwrap();
        assert!(arrived.len() == len && arrived[0] == mark && arrived[len - 1] == mark);
    }
}

#[test]
fn a_million_hand_overs_leave_nothing_behind_alone() {
    let runtime = runtime();
    let app = load(&runtime, vec![spec("echo", guest(ECHO)), spec("main", guest(ECHO))]);
    let functions = ["echo", "main"];
    // Enough chains to see every length, then the first thousand that count.
    hand_over(&app, &functions, 0, 8 * WARM);
    let first = Holding::now();
    hand_over(&app, &functions, 8 * WARM, HAND_OVERS);
    Holding::now().is_still(&first);
}

#[test]
fn a_hundred_thousand_calls_of_one_sandbox_leave_nothing_behind_alone() {
    let [echo, main] = ["echo", "main"].map(|name| {
        let mut spec = spec(name, guest(ECHO));
        spec.reuse = true;
        spec
    });
    let app = load(&runtime(), vec![echo, main]);
    let functions = ["echo", "main"];
    hand_over(&app, &functions, 0, 8 * WARM);
    let first = Holding::now();
    hand_over(&app, &functions, 8 * WARM, HAND_OVERS / 10);
    Holding::now().is_still(&first);
}

#[test]
fn calls_shares_and_fan_outs_leave_nothing_behind_alone() {
    let body = "(drop (call $peer (local.get $ptr) (local.get $len) (i32.const 1)))
        (drop (call $wait (call $send (local.get $ptr) (local.get $len) (i32.const 1)) (i32.const 16)))
        (local.set $a (call $buffer_alloc (i32.const 70000) (i32.const 0)))
        (i32.store8 (local.get $a) (i32.const 1))
        (drop (call $peer (local.get $a) (i32.const 70000) (i32.const 0)))
        (drop (call $peer (local.get $ptr) (local.get $len) (i32.const 0)))
        (return (call $pack (call $out_ptr) (call $out_len)))";
    let mut main = spec("main", guest(body));
    main.backing = Backing::Memfd;
    let failing = "(if (i32.and (i32.load8_u (local.get $ptr)) (i32.const 1)) (then (unreachable)))
        (return (call $pack (local.get $ptr) (local.get $len)))";
    let app = load(&runtime(), vec![main, spec("peer", guest(failing)), spec("echo", guest(ECHO))]);
    let rounds = |from: u32, to: u32| {
        for round in from..to {
            let mark = u8::try_from(round % 250).unwrap() + 1;
            let len = [20_000, 300, 90_000, 2_100_000][round as usize % 4];
            drop(send(&app, "main", &vec![mark; len]).unwrap());
            let (parts, _) = sealed(&app, &vec![mark; len]).split(3, app.home()).unwrap();
            for part in parts {
                drop(app.call("echo", Payload::One(part), Instant::now()).unwrap());
            }
        }
    };
    rounds(0, 200);
    let first = Holding::now();
    rounds(200, 4000);
    Holding::now().is_still(&first);
}

/// Page faults of this thread that needed no disk.
fn faults() -> u64 {
    let stat = fs::read_to_string("/proc/thread-self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[7].parse().unwrap()
}

#[test]
fn reading_a_moved_payload_faults_no_page_alone() {
    // One byte of each of its 256 pages, which are too few for a huge page.
    let reads = "(local.set $b (i32.add (local.get $ptr) (local.get $len)))
        (loop $next
          (local.set $a (i32.add (local.get $a) (i32.load8_u (local.get $ptr))))
          (local.set $ptr (i32.add (local.get $ptr) (i32.const 4096)))
          (br_if $next (i32.lt_u (local.get $ptr) (local.get $b))))
        (call $put (local.get $a))";
    let app = load(&runtime(), vec![spec("main", guest(reads)), spec("echo", guest(ECHO))]);
    let sent = pattern(1 << 20);
    let sum: u32 = sent.iter().step_by(4096).map(|byte| u32::from(*byte)).sum();
    let mut fewest = u64::MAX;
    for _ in 0..10 {
        let held = Payload::Held(send(&app, "echo", &sent).unwrap());
        let before = faults();
        let mut reply = app.call("main", held, Instant::now()).unwrap();
        fewest = fewest.min(faults() - before);
        assert_eq!(reply.account.traffic.copied, 0);
        assert_eq!(bytes_of(&mut reply), sum.to_le_bytes());
    }
    // A fresh sandbox touches a few pages of its own.
    assert!(fewest < 64, "{fewest} page faults for 256 pages that were there");
}
