//! The help texts, which are documentation.

use crate::program::Sandbox;

#[test]
fn every_command_explains_itself_with_examples_and_exit_codes() {
    let sandbox = Sandbox::new();
    let help = |args: &[&str]| String::from_utf8(sandbox.run(args).fine()).unwrap();
    insta::assert_snapshot!("help", help(&["--help"]));
    for command in ["demo", "run", "serve", "invoke", "inspect", "compile", "bench", "doctor"] {
        let text = help(&[command, "--help"]);
        assert!(text.contains("Examples:\n  roadrunner "), "{text}");
        insta::assert_snapshot!(format!("help-{command}"), text);
    }
    for command in ["build", "push"] {
        let text = help(&["image", command, "--help"]);
        assert!(text.contains("Examples:\n  roadrunner image "), "{text}");
        insta::assert_snapshot!(format!("help-image-{command}"), text);
    }
    for scenario in ["transfer", "invoke", "fanout", "handover", "http", "peers"] {
        let text = help(&["bench", scenario, "--help"]);
        assert!(text.contains("Examples:\n  roadrunner bench "), "{text}");
        insta::assert_snapshot!(format!("help-bench-{scenario}"), text);
    }
}

#[test]
fn wrong_command_lines_end_in_code_2() {
    let sandbox = Sandbox::new();
    for args in [&[][..], &["run"], &["fly"], &["run", "w.toml", "--mode", "teleport"]] {
        let ended = sandbox.run(args);
        assert_eq!(ended.code, Some(2), "{args:?}");
        assert!(ended.stdout.is_empty());
    }
}
