//! What of a request's head a function sees, and the type of its response.

use roadrunner_gateway::Limits;

use crate::client::Answer;
use crate::support::Server;

fn ask(server: &Server, path: &str, fields: &str) -> Answer {
    let mut client = server.client();
    client.head(path, &format!("Content-Length: 0\r\n{fields}"));
    client.answer()
}

/// What a function wrote of its environment, but for the trace; how many traces it wrote.
fn environment(answer: &Answer) -> (Vec<String>, usize) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    let all = answer.text().split_terminator('\0').map(str::to_owned);
    let (traces, rest): (Vec<_>, Vec<_>) = all.partition(|it| it.starts_with("TRACEPARENT=00-"));
    (rest, traces.len())
}

#[test]
fn the_headers_that_a_function_names_are_its_variables() {
    let server = Server::start(Limits::default());
    let fields = "content-TYPE: image/jpeg\r\nAccept-Language: de\r\nX-Secret: no\r\n\
        Accept-Language: en;q=0.5\r\nCookie: a=1\r\nCookie: b=2\r\nProxy: http://evil\r\n";
    for path in ["/workflows/shows", "/functions/shows", "/functions/shows.shows"] {
        let (seen, traces) = environment(&ask(&server, path, fields));
        let expected = [
            "HTTP_ACCEPT_LANGUAGE=de, en;q=0.5",
            "CONTENT_TYPE=image/jpeg",
            "HTTP_COOKIE=a=1; b=2",
        ];
        assert_eq!((seen, traces), (expected.map(str::to_owned).to_vec(), 1), "{path}");
    }
    assert_eq!(environment(&ask(&server, "/workflows/shows", "")), (vec![], 1));
    assert_eq!(environment(&ask(&server, "/workflows/typed", fields)), (vec![], 1));
}

#[test]
fn only_the_function_that_takes_the_request_sees_headers() {
    let server = Server::start(Limits::default());
    let show = ["HTTP_X_A=1".to_owned()].to_vec();
    let answer = ask(&server, "/workflows/shown", "X-A: 1\r\n");
    assert_eq!(environment(&answer), (show.clone(), 2), "the second has none, but a span");
    assert_eq!(environment(&ask(&server, "/functions/last", "X-A: 1\r\n")), (show, 1));
}

#[test]
fn headers_that_are_too_long_together_are_431() {
    let server = Server::start(Limits::default());
    let long = "x".repeat(8 << 10);
    let answer = ask(&server, "/workflows/shows", &format!("Cookie: {long}\r\n"));
    assert_eq!(answer.status, 431);
    assert_eq!(ask(&server, "/workflows/typed", &format!("Cookie: {long}\r\n")).status, 200);
    assert_eq!(
        ask(&server, "/workflows/shows", &format!("Cookie: {}\r\n", &long[20..])).status,
        200
    );
}

#[test]
fn the_function_that_makes_the_response_says_its_type() {
    let server = Server::start(Limits::default());
    for (path, kind) in [
        ("/workflows/typed", "text/plain; charset=utf-8"),
        ("/workflows/shows", "application/octet-stream"),
        ("/workflows/shown", "image/png"),
        ("/functions/show", "a/b"),
        ("/functions/last", "image/png"),
    ] {
        let answer = ask(&server, path, "");
        assert_eq!(answer.header("content-type"), Some(kind), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    let fault = ask(&server, "/workflows/traps", "");
    assert_eq!(fault.header("content-type"), Some("text/plain; charset=utf-8"));
}
