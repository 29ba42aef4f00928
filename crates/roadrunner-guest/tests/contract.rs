//! `docs/guest-abi.md` says the same as `roadrunner_abi`.

use roadrunner_abi::{ALLOC_UNSPECIFIED, CALL_SHARE, Errno, IMPORT_MODULE, export, import, limit};
use std::path::Path;

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guest-abi.md");
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The cells of all rows of the table under a heading row, with code marks taken off.
fn table(header: &str) -> Vec<Vec<String>> {
    let document = document();
    let mut lines = document.lines().skip_while(|line| *line != header);
    assert!(lines.next().is_some(), "there is no table {header:?}");
    lines
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
        })
        .collect()
}

#[test]
fn names_are_the_same() {
    let names = |header| table(header).into_iter().map(|mut row| row.swap_remove(0));
    let mut exports: Vec<String> = names("| export | signature | |").collect();
    exports.sort();
    let mut expected = [
        export::MEMORY,
        export::HANDLE,
        export::HANDLE_MANY,
        export::ALLOCATE,
        export::DEALLOCATE,
        export::REALLOC,
        export::INITIALIZE,
        export::START,
    ];
    expected.sort_unstable();
    assert_eq!(exports, expected);

    let imports: Vec<String> = names("| import | signature | returns |").collect();
    let expected = [
        import::BUFFER_ALLOC,
        import::BUFFER_FREE,
        import::CALL,
        import::SUBMIT,
        import::WAIT,
        import::FAIL,
        import::LOG,
        import::DEADLINE_NS,
    ];
    assert_eq!(imports, expected);
    assert!(document().contains(&format!("Import module `{IMPORT_MODULE}`")));
}

#[test]
fn flags_are_the_same() {
    let flags: Vec<_> = table("| flag | value | of | meaning |")
        .iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let expected = [("ALLOC_UNSPECIFIED", ALLOC_UNSPECIFIED), ("CALL_SHARE", CALL_SHARE)]
        .map(|(name, value)| (name.to_owned(), value.to_string()));
    assert_eq!(flags, expected);
}

#[test]
fn errors_are_the_same() {
    let rows = table("| number | name | meaning |");
    for (code, row) in (0..).zip(&rows) {
        let errno =
            Errno::from_code(code).unwrap_or_else(|code| panic!("no error has number {code}"));
        assert_eq!(row[..2], [code.to_string(), format!("{errno:?}")]);
        let meaning = &row[2];
        assert!(
            meaning.starts_with(errno.message()),
            "{errno:?} is {:?}, not {meaning:?}",
            errno.message()
        );
    }
    let next = i32::try_from(rows.len()).unwrap();
    assert_eq!(Errno::from_code(next), Err(next), "an error is missing in the document");
}

#[test]
fn limits_are_the_same() {
    let limits: Vec<_> = table("| name | value | of what, and why |")
        .iter()
        .map(|row| (row[0].clone(), row[1].parse::<u64>().unwrap()))
        .collect();
    let expected = [
        ("NAME_BYTES", u64::from(limit::NAME_BYTES)),
        ("MESSAGE_BYTES", u64::from(limit::MESSAGE_BYTES)),
        ("BUFFERS", limit::BUFFERS as u64),
        ("TICKETS", limit::TICKETS as u64),
        ("CALL_DEPTH", u64::from(limit::CALL_DEPTH)),
        ("INPUTS", limit::INPUTS as u64),
        ("PAYLOAD_BYTES", limit::PAYLOAD_BYTES),
    ]
    .map(|(name, value)| (name.to_owned(), value));
    assert_eq!(limits, expected);
}
