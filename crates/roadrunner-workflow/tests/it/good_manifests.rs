//! What right manifests mean.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs};

use roadrunner_workflow::{Dir, Found, FunctionIndex, Module, Placement, Workflow, limit};

use crate::parse;

const WHOLE: &str = r#"
[workflow]
name = "thumbnail"
entry = "decode"

[functions.decode]
module = "decode.wasm"
next = ["resize"]
headers = ["Accept-Language", "content-type"]
[functions.resize]
module = "bin/resize.cwasm"
calls = ["classify", "resize"]
placement = "process:gpu-side"
memory = "256 MiB"
timeout = "500ms"
content_type = "text/plain; charset=utf-8"
[functions.resize.wasi]
env = { QUALITY = "85", A = "" }
dirs = { "/models" = { path = "./models", write = true }, "/" = { path = "/srv/root" } }
[functions.classify]
module = "/opt/classify.wat"
placement = "node:edge-1"
[nodes.edge-1]
address = "10.0.0.7:7400"
"#;

fn names(workflow: &Workflow, indexes: &[FunctionIndex]) -> Vec<String> {
    indexes.iter().map(|&index| workflow[index].name.clone()).collect()
}

#[test]
fn every_key_arrives() {
    let workflow = parse(WHOLE).unwrap();
    assert_eq!(workflow.name(), "thumbnail");
    assert_eq!(names(&workflow, &[workflow.entry(), workflow.last()]), ["decode", "resize"]);
    assert_eq!(workflow.find("nobody"), None);

    let decode = &workflow[workflow.find("decode").unwrap()];
    assert_eq!(decode.module.file(), Some(Path::new("flow/decode.wasm")));
    assert_eq!(names(&workflow, &decode.next), ["resize"]);
    assert_eq!(decode.placement, Placement::Local);
    assert_eq!((decode.memory_bytes, decode.timeout), (None, None));
    assert_eq!(decode.wasi, Default::default());
    let headers = decode.headers.iter().map(|it| (it.name.as_str(), it.variable.as_str()));
    let expected = [("accept-language", "HTTP_ACCEPT_LANGUAGE"), ("content-type", "CONTENT_TYPE")];
    assert_eq!(headers.collect::<Vec<_>>(), expected);
    assert_eq!(decode.content_type, None);

    let resize = &workflow[workflow.find("resize").unwrap()];
    assert_eq!(resize.module.file(), Some(Path::new("flow/bin/resize.cwasm")));
    assert_eq!(names(&workflow, &resize.previous), ["decode"]);
    assert_eq!(names(&workflow, &resize.calls), ["classify", "resize"]);
    assert_eq!(resize.placement, Placement::Process("gpu-side".to_owned()));
    assert_eq!(resize.memory_bytes, Some(256 << 20));
    assert_eq!(resize.timeout, Some(Duration::from_millis(500)));
    assert_eq!(resize.content_type.as_deref(), Some("text/plain; charset=utf-8"));
    assert_eq!(resize.headers, []);
    let text = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(resize.wasi.env, [text("QUALITY", "85"), text("A", "")]);
    let dir = |guest: &str, host: &str, write| Dir {
        guest: guest.to_owned(),
        host: PathBuf::from(host),
        write,
    };
    assert_eq!(
        resize.wasi.dirs,
        [dir("/models", "flow/./models", true), dir("/", "/srv/root", false)]
    );

    let classify = &workflow[workflow.find("classify").unwrap()];
    assert_eq!(classify.module.file(), Some(Path::new("/opt/classify.wat")));
    let Placement::Node(node) = classify.placement else { panic!("{:?}", classify.placement) };
    assert_eq!(
        (workflow[node].name.as_str(), workflow[node].address.as_str()),
        ("edge-1", "10.0.0.7:7400")
    );
}

#[test]
fn other_spellings_of_the_same_toml_mean_the_same() {
    let inline = "\u{feff}workflow = { name = 'w', entry = 'a' }\r\n\
        functions = { b = { module = 'b.wasm' }, a = { module = 'a.wasm', next = ['b'] } }\r\n";
    let dotted = "functions.b.module = 'b.wasm'\nfunctions.a.module = 'a.wasm'\nfunctions.a.next = ['b']\n\
        workflow.entry = 'a'\nworkflow.name = 'w'";
    for text in [inline, dotted] {
        let workflow = parse(text).unwrap();
        let all: Vec<_> = workflow.indexes().collect();
        assert_eq!(names(&workflow, &all), ["b", "a"], "the order of the file");
        assert_eq!(workflow.plan().steps().len(), 2);
    }
}

#[test]
fn the_largest_fan_in_is_allowed_and_one_more_is_not() {
    let fan = |width: usize| {
        let all: Vec<_> = (0..width).map(|n| format!("f{n}")).collect();
        let mut text = format!(
            "workflow = {{ name = 'w', entry = 'in' }}\n[functions]\nin = {{ module = 'm.wasm', next = {all:?} }}\nout.module = 'm.wasm'\n"
        );
        for name in all {
            text += &format!("{name} = {{ module = 'm.wasm', next = ['out'] }}\n");
        }
        parse(&text)
    };
    assert_eq!(fan(256).unwrap().plan().steps().len(), 258);
    assert_eq!(
        fan(257).unwrap_err(),
        "flow/r.toml:4:1: function \"out\" is the next of 257 functions, but 256 inputs are the limit; join them in several steps"
    );
}

#[test]
fn too_many_functions_and_too_much_text_are_refused() {
    let mut text = "workflow = { name = 'w', entry = 'f0' }\n[functions]\n".to_owned();
    for n in 0..=limit::FUNCTIONS {
        text += &format!("f{n} = {{ module = 'm.wasm' }}\n");
    }
    assert_eq!(
        parse(&text).unwrap_err(),
        "flow/r.toml:2:2: the workflow has 1025 functions, but 1024 is the limit; split it into several workflows"
    );
    let mut text =
        "workflow = { name = 'w', entry = 'a' }\nfunctions.a.module = 'm.wasm'\n[nodes]\n"
            .to_owned();
    for n in 0..limit::NODES {
        text += &format!("n{n}.address = 'host:1'\n");
    }
    assert_eq!(parse(&text).unwrap().nodes().len(), 1024);
    text += "more.address = 'host:1'";
    assert_eq!(
        parse(&text).unwrap_err(),
        "flow/r.toml:3:2: the manifest has 1025 nodes, but 1024 is the limit; remove some"
    );
    let large = "#".repeat(limit::MANIFEST_BYTES + 1);
    let message = "flow/r.toml: the file has more than 1048576 bytes, too many for a manifest; name a roadrunner.toml";
    assert_eq!(parse(&large).unwrap_err(), message);
}

#[test]
fn a_long_chain_and_a_long_cycle_are_no_trouble() {
    let ring = |last: &str| {
        let mut text = "workflow = { name = 'w', entry = 'f0' }\n[functions]\n".to_owned();
        for n in 0..1023 {
            text += &format!("f{n} = {{ module = 'm.wasm', next = ['f{}'] }}\n", n + 1);
        }
        parse(&(text + &format!("f1023 = {{ module = 'm.wasm', next = [{last}] }}\n")))
    };
    assert_eq!(ring("").unwrap().plan().steps().len(), 1024);
    assert_eq!(
        ring("'f1'").unwrap_err(),
        "flow/r.toml:1026:38: the flow runs in a cycle: f1 -> f2 -> f3 -> f4 -> f5 -> f6 -> f7 -> f8 -> f9 -> f10 -> f11 -> f12 \
         -> ... -> f1023 -> f1; remove \"f1\" from the `next` of \"f1023\""
    );
}

#[test]
fn load_reads_files_relative_to_the_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("roadrunner.toml");
    let shown = |path: &Path| Workflow::load(path).map(drop).map_err(|error| error.to_string());
    let at = |path: &Path, message: &str| Err(format!("{}{message}", path.display()));

    assert_eq!(
        shown(&manifest),
        at(&manifest, ": the manifest cannot be read: No such file or directory (os error 2)")
    );
    let hint =
        format!(": this is a folder; name the manifest in it, such as {}", manifest.display());
    assert_eq!(shown(folder.path()), at(folder.path(), &hint));

    fs::write(&manifest, WHOLE.replace("/opt/", "").replace("/srv/root", ".")).unwrap();
    let missing = shown(&manifest).unwrap_err();
    let places: Vec<_> = missing
        .lines()
        .map(|line| line.split(": ").next().unwrap_or_default().rsplit_once('/').unwrap().1)
        .collect();
    assert_eq!(
        places,
        [
            "roadrunner.toml:7:10",
            "roadrunner.toml:11:10",
            "roadrunner.toml:19:31",
            "roadrunner.toml:21:10"
        ]
    );

    fs::create_dir(folder.path().join("bin")).unwrap();
    fs::create_dir(folder.path().join("models")).unwrap();
    for module in ["decode.wasm", "bin/resize.cwasm", "classify.wat"] {
        fs::write(folder.path().join(module), "").unwrap();
    }
    let workflow = Workflow::load(&manifest).unwrap();
    assert_eq!(workflow.functions()[0].module, Module::File(folder.path().join("decode.wasm")));

    fs::write(&manifest, b"[workflow]\nname = \"\xff\"\n").unwrap();
    assert_eq!(
        shown(&manifest),
        at(&manifest, ":2:9: this is not UTF-8 text; save the manifest as UTF-8")
    );
    fs::write(&manifest, "é".repeat(limit::MANIFEST_BYTES)).unwrap();
    assert!(shown(&manifest).unwrap_err().contains("too many for a manifest"));
}

/// Every TOML block of the reference is a whole manifest.
#[test]
fn the_examples_of_the_reference_are_right() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/manifest.md");
    let reference = fs::read_to_string(path).unwrap();
    let examples: Vec<_> = reference
        .split("```toml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default())
        .collect();
    assert_eq!(examples.len(), 4);
    let look = |path: &Path| {
        if path.extension().is_some() { Found::File } else { Found::Folder }
    };
    for example in examples {
        if let Err(error) = Workflow::parse(example, Path::new("roadrunner.toml"), &look) {
            panic!("{error}\n{example}");
        }
    }
    // The message that the reference shows is what its first example gives with that slip.
    let slip = reference.split("```toml\n").nth(1).unwrap().split("```").next().unwrap().replacen(
        "[\"classify\"]",
        "[\"clasify\"]",
        1,
    );
    let message =
        Workflow::parse(&slip, Path::new("roadrunner.toml"), &look).unwrap_err().to_string();
    assert!(reference.contains(&message), "{message}");
}
