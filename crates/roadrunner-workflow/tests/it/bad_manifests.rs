//! One wrong manifest per rule, with the complete message.

use crate::parse;

/// Each manifest is written after these lines unless it has a `[workflow]` of its own, so that
/// its own first line is line 4.
const START: &str = "[workflow]\nname = \"w\"\nentry = \"a\"\n";

/// The manifest, and its messages without the file name.
const TABLE: &[(&str, &str)] = &[
    // the TOML
    (r#"functions = ["#, r#"4:14: this is not TOML: unclosed array, expected `]`"#),
    (
        r#"[functions.a]
module = "a.wasm"
[functions.a]"#,
        r#"6:12: "a" is given twice; remove or rename one of them"#,
    ),
    (
        r#"[functions.a]
module = "a.wasm"
next = ["b]
"#,
        r#"6:12: this is not TOML: unclosed array, expected `]`"#,
    ),
    // HTTP
    (
        r#"[functions.a]
module = "a.wasm"
headers = ["Proxy", "x_y", "", "accept", "ACCEPT", "traceparent", "content-length", 3]
content_type = "png"
"#,
        r#"6:12: function "a" has "Proxy" in `headers`, which functions don't get: as HTTP_PROXY it would tell libraries to send what they send through a client's proxy; remove it
6:21: function "a" has "x_y" in `headers`, which is not a name that can be a variable's; write one of a-z, 0-9 and "-" with at most 128 bytes
6:28: function "a" has "" in `headers`, which is not a name that can be a variable's; write one of a-z, 0-9 and "-" with at most 128 bytes
6:42: function "a" names "ACCEPT" twice in `headers`; remove one
6:52: function "a" has "traceparent" in `headers`, which functions don't get: every function sees its own span as TRACEPARENT; remove it
6:67: function "a" has "content-length" in `headers`, which functions don't get: the function gets the length with the payload; remove it
6:85: function "a" has an integer in `headers`, which is a list of names; write headers = ["name"]
7:16: function "a" has content_type "png", which is not a media type; write one like "image/png" or "text/plain; charset=utf-8""#,
    ),
    (
        r#"[functions.a]
module = "a.wasm"
placement = "process:p"
headers = ["accept", "content-type"]
content_type = "text/plain\nX: y"
wasi.env = { CONTENT_TYPE = "image/png" }
"#,
        r#"7:12: function "a" has `headers` but runs elsewhere, and headers stay in the process that takes the request; remove one of `headers` and `placement`
7:22: function "a" has the header "content-type" and, in its `env`, the variable CONTENT_TYPE, which it would be; remove one
8:16: function "a" has content_type "text/plain\nX: y", which is not a media type; write one like "image/png" or "text/plain; charset=utf-8""#,
    ),
    (
        r#"[functions.a]
module = "a.wasm"
headers = ["a","b","c","d","e","f","g","h","i","j","k","l","m","n","o","p","q"]
"#,
        r#"6:76: function "a" has 17 `headers`, but 16 is the limit; remove some"#,
    ),
    // tables and keys
    (
        r#"# [workflow] is missing
x = 1
[functions.a]
module = "a.wasm""#,
        r#"1:1: the manifest has no table [workflow]; write [workflow] with `name` and `entry`
2:1: the manifest has no key "x" (known keys: workflow, functions, nodes)"#,
    ),
    (
        r#"workflow = 3"#,
        r#"1:1: the workflow has no functions; write [functions.NAME] with module = "NAME.wasm"
1:1: [workflow] is an integer, but must be a table; write [workflow]"#,
    ),
    (
        r#"[workflow]
[functions.a]
module = "a.wasm"
"#,
        r#"1:2: [workflow] has no `name`; write name = "my-workflow"
1:2: [workflow] has no `entry`; write entry = "a""#,
    ),
    (
        r#"[workflow]
name = "w"
entry = "aa"
entyr = "a"
[functions.a]
module = "a.wasm"
"#,
        r#"3:9: [workflow] names unknown function "aa" as `entry` (known functions: "a")
4:1: [workflow] has no key "entyr"; did you mean `entry`? (known keys: name, entry, callers)"#,
    ),
    (
        r#"[workflow]
name = "My Flow"
entry = "b2"
[functions.a]
module = "a.wasm"
"#,
        r#"2:8: the workflow has the name "My Flow"; write one of a-z, 0-9, "-", "_" and "." that begins with a letter or digit, such as "my-flow"
3:9: [workflow] names unknown function "b2" as `entry` (known functions: "a")"#,
    ),
    (
        r#"# no workflow, nothing"#,
        r#"1:1: the workflow has no functions; write [functions.NAME] with module = "NAME.wasm"
1:1: the manifest has no table [workflow]; write [workflow] with `name` and `entry`"#,
    ),
    (
        r#""#,
        r#"1:1: the workflow has no functions; write [functions.NAME] with module = "NAME.wasm""#,
    ),
    (
        r#"functions = "a"
[workflow]
name = "w"
entry = "a""#,
        r#"1:1: `functions` is text, but must be a table; write [functions.NAME] with module = "NAME.wasm""#,
    ),
    (
        r#"functions = {}
nodes = 1
[workflow]
name = "w"
entry = "a""#,
        r#"1:1: the workflow has no functions; write [functions.NAME] with module = "NAME.wasm"
2:1: `nodes` is an integer, but must be a table; write [nodes.NAME] with address = "HOST:PORT""#,
    ),
    (
        r#"[functions]
a = "a.wasm""#,
        r#"5:1: function "a" is text, but must be a table; write [functions.a]"#,
    ),
    (
        r#"[function.a]
module = "a.wasm""#,
        r#"1:1: the workflow has no functions; write [functions.NAME] with module = "NAME.wasm"
4:2: the manifest has no key "function"; did you mean `functions`? (known keys: workflow, functions, nodes)"#,
    ),
    (
        r#"[functions.a]
module = "a.wasm"
nxt = ["b"]
retries = 3"#,
        r#"6:1: function "a" has no key "nxt"; did you mean `next`? (known keys: module, next, calls, placement, memory, timeout, idempotent, retries, reuse, headers, content_type, wasi)
7:1: function "a" has `retries`, with which a call may run twice; write idempotent = true if that does no harm"#,
    ),
    (
        r#"[functions.a]
module = "a.wasm"
idempotent = "yes"
reuse = 1
retries = 11"#,
        r#"6:14: function "a" has text as `idempotent`, which must be true or false; write idempotent = false
7:9: function "a" has an integer as `reuse`, which must be true or false; write reuse = false
8:11: function "a" has a `retries` out of range; write 0 to 10"#,
    ),
    (
        r#"[functions.a]
module = "a.wasm"
idempotent = true
retries = "2""#,
        r#"7:11: function "a" has text as `retries`, which must be a number from 0 to 10; write retries = 2"#,
    ),
    (
        r#"[functions.a]
modul = "a.wasm""#,
        r#"4:12: function "a" has no `module`; write module = "name.wasm"
5:1: function "a" has no key "modul"; did you mean `module`? (known keys: module, next, calls, placement, memory, timeout, idempotent, retries, reuse, headers, content_type, wasi)"#,
    ),
    (
        r#"[functions.a.v2]
module = "a.wasm"
[functions.a]
module = "a.wasm"
"#,
        r#"4:14: function "a" has no key "v2"; for a function with a dot in its name write [functions."a.v2"] (known keys: module, next, calls, placement, memory, timeout, idempotent, retries, reuse, headers, content_type, wasi)"#,
    ),
    (
        r#"[functions.a.v2]
module = "a.wasm""#,
        r#"4:14: function "a" has no key "v2"; for a function with a dot in its name write [functions."a.v2"] (known keys: module, next, calls, placement, memory, timeout, idempotent, retries, reuse, headers, content_type, wasi)"#,
    ),
    // types
    (
        r#"[functions.a]
module = 3
next = "b"
[functions.b]
module = "b.wasm"
"#,
        r#"5:10: function "a" has an integer as `module`, which must be text in quotes; write module = "name.wasm"
6:8: function "a" has text as `next`, which must be a list of names; write next = ["b"]"#,
    ),
    (
        r#"[functions.a]
module = "a.wasm"
next = ["b", 3]
calls = 1
[functions.b]
module = "b.wasm"
"#,
        r#"6:14: function "a" has an integer in `next`, which is a list of names; write next = ["name"]
7:9: function "a" has an integer as `calls`, which must be a list of names; write calls = ["name"]"#,
    ),
    // names
    (
        r#"[functions.a]
module = "a.wasm"
next = ["Résize"]
[functions."Résize"]
module = "b.wasm""#,
        r#"7:12: a function has the name "Résize"; write one of a-z, 0-9, "-", "_" and "." that begins with a letter or digit, such as "r-size""#,
    ),
    (
        r#"[functions.a]
module = "a.wasm"
next = [""]
[functions.""]
module = "b.wasm""#,
        r#"7:12: a function has the name ""; write one of a-z, 0-9, "-", "_" and "." that begins with a letter or digit"#,
    ),
    (
        r#"[functions.a]
module = "a.wasm"
placement = "process:../x""#,
        r#"6:13: a process has the name "../x"; write one of a-z, 0-9, "-", "_" and "." that begins with a letter or digit, such as "x""#,
    ),
    (
        r#"[functions.a]
module = "a.wasm"
next = ["bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"]
[functions.bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb]
module = "b.wasm""#,
        r#"7:12: a function has a name of 129 bytes, "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"...; write one of at most 128"#,
    ),
    // modules
    (
        r#"[functions.a]
module = "missing.wasm""#,
        r#"5:10: function "a" has module "missing.wasm", but there is no file "flow/missing.wasm"; build it, or correct the path, which starts at the manifest's folder"#,
    ),
    (
        r#"[functions.a]
module = "oci://ghcr.io/x/y""#,
        r#"5:10: function "a" has module "oci://ghcr.io/x/y", which names no image; write oci://REGISTRY/NAME:TAG or oci://REGISTRY/NAME@sha256:DIGEST"#,
    ),
    (
        r#"[functions.a]
module = "a.so""#,
        r#"5:10: function "a" has module "a.so", which is not a module; name a file that ends in .wasm, .wat or .cwasm"#,
    ),
    (
        r#"[functions.a]
module = """#,
        r#"5:10: function "a" has module "", which is not a module; name a file that ends in .wasm, .wat or .cwasm"#,
    ),
    // measures
    (
        r#"[functions.a]
module = "a.wasm"
memory = "256 MB"
timeout = "10""#,
        r#"6:10: function "a" has a wrong `memory`: "256 MB" has the unknown unit "MB"; write "256 MiB" (units: B, KiB, MiB, GiB)
7:11: function "a" has a wrong `timeout`: "10" has no unit; write it like "10s" (units: ms, s, m, h)"#,
    ),
    (
        r#"[functions.a]
module = "a.wasm"
memory = 268435456
timeout = "soon""#,
        r#"6:10: function "a" has an integer as `memory`, which must be text in quotes; write memory = "256 MiB"
7:11: function "a" has a wrong `timeout`: "soon" is not a duration; write a whole number and a unit, such as "10s""#,
    ),
    (
        r#"[functions.a]
module = "a.wasm"
memory = "1 KiB"
timeout = "0s""#,
        r#"6:10: function "a" has memory "1 KiB", which is out of range; write 64 KiB to 4 GiB
7:11: function "a" has timeout "0s", which is out of range; write 1ms to 24h"#,
    ),
    (
        r#"[functions.a]
module = "a.wasm"
memory = "5 GiB"
timeout = "25h""#,
        r#"6:10: function "a" has memory "5 GiB", which is out of range; write 64 KiB to 4 GiB
7:11: function "a" has timeout "25h", which is out of range; write 1ms to 24h"#,
    ),
    // places
    (
        r#"[functions.a]
module = "a.wasm"
placement = "remote""#,
        r#"6:13: function "a" has the unknown placement "remote"; write "local", "process:NAME" or "node:NAME""#,
    ),
    (
        r#"[functions.a]
module = "a.wasm"
placement = "node:edge-2"
[nodes.edge-1]
address = "10.0.0.7:7400""#,
        r#"6:13: function "a" is placed on unknown node "edge-2"; did you mean "edge-1"?"#,
    ),
    (
        r#"[functions.a]
module = "a.wasm"
placement = "node:cloud""#,
        r#"6:13: function "a" is placed on unknown node "cloud"; add [nodes.cloud] with its `address`"#,
    ),
    (
        r#"[functions.a]
module = "a.wasm"
[nodes.edge-1]
address = "10.0.0.7"
port = 7400
[nodes.x]"#,
        r#"7:11: node "edge-1" has address "10.0.0.7", which is not HOST:PORT; write it like "10.0.0.7:7400", "[fd00::7]:7400" or "edge-1.lan:7400"
8:1: node "edge-1" has no key "port" (known keys: address)
9:8: node "x" has no `address`; write address = "10.0.0.7:7400""#,
    ),
    // WASI
    (
        r#"[functions.a]
module = "a.wasm"
wasi.env = { "X\u001bY" = 1, "" = "x", Z = "\u0000" }"#,
        r#"6:27: `env` in [functions.a.wasi] has an integer as `"X\u{1b}Y"`, which must be text in quotes; write "X\u{1b}Y" = "..."
6:30: `env` in [functions.a.wasi] has the variable ""; write a name without "="
6:44: `env` in [functions.a.wasi] has a NUL character in `Z`; remove it"#,
    ),
    (
        r#"[functions.a]
module = "a.wasm"
wasi = "all""#,
        r#"6:1: [functions.a.wasi] is text, but must be a table; write [functions.a.wasi]"#,
    ),
    (
        r#"[functions.a]
module = "a.wasm"
[functions.a.wasi]
envs = {}
env = { QUALITY = 85, "A=B" = "c" }"#,
        r#"7:1: [functions.a.wasi] has no key "envs"; did you mean `env`? (known keys: env, dirs)
8:19: `env` in [functions.a.wasi] has an integer as `QUALITY`, which must be text in quotes; write QUALITY = "..."
8:23: `env` in [functions.a.wasi] has the variable "A=B"; write a name without "=""#,
    ),
    (
        r#"[functions.a]
module = "a.wasm"
wasi.dirs = { "models" = { path = "m" }, "/x" = { path = "missing" }, "/y" = { path = "f.txt", wirte = true }, "/z" = "z" }"#,
        r#"6:15: "models" in `dirs` in [functions.a.wasi] is not a guest path; write an absolute one such as "/models", without ".", ".." and "/" at the end
6:58: "/x" in `dirs` in [functions.a.wasi] has path "missing", but "flow/missing" does not exist; name a folder, starting at the manifest's folder
6:87: "/y" in `dirs` in [functions.a.wasi] has path "f.txt", but "flow/f.txt" is a file; name a folder, starting at the manifest's folder
6:96: "/y" in `dirs` in [functions.a.wasi] has no key "wirte"; did you mean `write`? (known keys: path, write)
6:112: "/z" in `dirs` in [functions.a.wasi] is text, but must be a table; write "/z" = { path = "./folder" }"#,
    ),
    (
        r#"[functions.a]
module = "a.wasm"
wasi.dirs = { "/x" = { write = "yes" } }"#,
        r#"6:15: "/x" in `dirs` in [functions.a.wasi] has no `path`; write path = "./folder"
6:32: "/x" in `dirs` in [functions.a.wasi] has text as `write`, which must be true or false; write write = false"#,
    ),
    // the graph
    (
        r#"[functions.a]
module = "a.wasm"
next = ["resize"]
[functions.resize]
module = "r.wasm"
calls = ["clasify"]
[functions.classify]
module = "c.wasm""#,
        r#"9:10: function "resize" names unknown function "clasify" in `calls`; did you mean "classify"?"#,
    ),
    (
        r#"[functions.a]
module = "a.wasm"
next = ["b"]
[functions.b]
module = "b.wasm"
next = ["a"]"#,
        r#"9:9: the flow runs in a cycle: a -> b -> a; remove "a" from the `next` of "b""#,
    ),
    (
        r#"[workflow]
name = "w"
entry = "in"
[functions.in]
module = "m.wasm"
next = ["c"]
[functions.b]
module = "b.wasm"
next = ["c"]
[functions.c]
module = "c.wasm"
next = ["d", "out"]
[functions.d]
module = "d.wasm"
next = ["b"]
[functions.out]
module = "m.wasm""#,
        r#"15:9: the flow runs in a cycle: b -> c -> d -> b; remove "b" from the `next` of "d""#,
    ),
    (
        r#"[functions.a]
module = "a.wasm"
next = ["a"]"#,
        r#"6:9: function "a" names itself in `next`; remove it (a function may name itself in `calls`)"#,
    ),
    (
        r#"[functions.a]
module = "a.wasm"
next = ["b", "b"]
calls = ["b", "b"]
[functions.b]
module = "b.wasm"
"#,
        r#"6:14: function "a" names "b" twice in `next`; remove one
7:15: function "a" names "b" twice in `calls`; remove one"#,
    ),
    (
        r#"[functions.a]
module = "a.wasm"
[functions.b]
module = "b.wasm"
"#,
        r#"6:12: function "b" is never reached; name it in the `next` or `calls` of one that is, or remove it"#,
    ),
    (
        r#"[functions.a]
module = "a.wasm"
[functions.b]
module = "b.wasm"
next = ["a"]"#,
        r#"6:12: function "b" is never reached; name it in the `next` or `calls` of one that is, or remove it"#,
    ),
    (
        r#"[functions.a]
module = "a.wasm"
calls = ["b"]
[functions.b]
module = "b.wasm"
next = ["a"]"#,
        r#"9:9: function "b" is only called, so its `next` is never followed; remove `next`, or name "b" in the `next` of another"#,
    ),
    (
        r#"[functions.a]
module = "a.wasm"
next = ["b", "c"]
[functions.b]
module = "b.wasm"
[functions.c]
module = "c.wasm""#,
        r#"9:12: the workflow ends in 2 functions ("b", "c"), but it has one result; add a function that joins them and name it in the `next` of each"#,
    ),
];

#[test]
fn every_rule_has_its_message() {
    let mut wrong = String::new();
    for (manifest, expected) in TABLE {
        let text = if manifest.contains("workflow") {
            (*manifest).to_owned()
        } else {
            format!("{START}{manifest}")
        };
        let found = match parse(&text) {
            Ok(_) => "(accepted)".to_owned(),
            Err(message) => message.replace("flow/r.toml:", ""),
        };
        if found != *expected {
            wrong += &format!("{text}\n--- expected\n{expected}\n--- found\n{found}\n\n");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
